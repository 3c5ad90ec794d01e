"""The application: `uvicorn app.main:app`, or `python -m app serve`."""

import gc

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import wiring
from app.auth import routes as auth
from app.auth.schemas import Credentials
from app.documents import routes as documents
from app.documents.schemas import Metadata
from app.processing import routes as processing
from app.server import health
from app.server.lifespan import lifespan
from app.settings import Settings, load
from app.telemetry import logs
from app.uploads import routes as uploads
from app.web import openapi, problems
from app.web.middleware import RequestMiddleware

ROUTERS = (
    uploads.router,
    documents.router,
    processing.router,
    auth.own,
    auth.router,
    uploads.open_to_all,
    health.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises ConfigurationError when the environment cannot be run with."""
    settings = settings or load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    app = FastAPIOffline(**openapi.DESCRIPTION, redoc_url=None, lifespan=lifespan(lambda: wiring.build(settings)))
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    # Before FastAPI's own, in the order in which they are looked through, and flat: what `include_router` makes is a
    # tree that is searched twice for each request.
    app.router.routes[:0] = [route for router in ROUTERS for route in router.routes]
    openapi.install(app, (Credentials, Metadata), wiring.PROCESSORS)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


app = create_app()
gc.freeze()  # all this stays: a full collection stops one of several workers for 1 ms now, not 80
