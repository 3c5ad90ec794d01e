"""The application: `uvicorn app.main:app`, or `python -m app serve`."""

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import health, logs, openapi, problems, wiring
from app.auth import routes as auth
from app.documents import routes as documents
from app.lifespan import lifespan
from app.middleware import RequestMiddleware
from app.processing import routes as processing
from app.settings import Settings, load
from app.uploads import routes as uploads


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises ConfigurationError when the environment cannot be run with."""
    settings = settings or load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    app = FastAPIOffline(**openapi.DESCRIPTION, redoc_url=None, lifespan=lifespan(lambda: wiring.build(settings)))
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    for router in (
        auth.router,
        auth.own,
        uploads.router,
        uploads.open_to_all,
        documents.router,
        processing.router,
        health.router,
    ):
        app.include_router(router)
    openapi.install(app, wiring.PROCESSORS)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


app = create_app()
