"""The application: `uvicorn app.main:app`, or `python -m app serve`."""

import gc

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import wiring
from app.auth import routes as auth
from app.auth.schemas import Credentials
from app.documents import routes as documents, upload_routes as uploads
from app.documents.schemas import Metadata
from app.processing import routes as processing
from app.server import health
from app.server.lifespan import lifespan
from app.settings import Settings, load
from app.telemetry import logs
from app.web import openapi, problems
from app.web.middleware import RequestMiddleware

# Routes are matched in this order.
ROUTERS = (
    uploads.router,
    documents.writing,
    documents.reading,
    documents.deleting,
    processing.processing,
    processing.reading,
    auth.authenticated,
    auth.router,
    uploads.public,
    health.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises ConfigurationError for settings that do not allow this process to run."""
    settings = settings or load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    app = FastAPIOffline(
        **openapi.DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan(lambda: wiring.build(settings)),
        # In one flat list: `include_router` would nest them, and every request would be matched against the router and
        # then the route.
        routes=[route for router in ROUTERS for route in router.routes],
    )
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    openapi.install(app, (Credentials, Metadata), wiring.PROCESSORS)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


app = create_app()
# What is imported and built so far lives as long as the process. Frozen, it is skipped by the garbage collector: a full
# collection takes 1 ms, not 80.
gc.freeze()
