"""The worker: it runs jobs that servers accept, and serves nothing but its health."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from app import wiring
from app.errors import ConfigurationError
from app.server import health, logs
from app.server.lifespan import Running, lifespan
from app.settings import Settings
from app.web import problems
from app.web.middleware import RequestMiddleware


def create_app(settings: Settings) -> FastAPI:
    """Build a worker that runs up to JOB_CONCURRENCY jobs at once. Raises ConfigurationError without PostgreSQL or a
    LOG_FILE that can be written."""
    if isinstance(settings.database, Path):
        raise ConfigurationError("DATABASE_URL: a worker needs PostgreSQL; with SQLite, servers run the jobs")
    return with_health(settings, lambda: wiring.build(settings, worker=True))


def with_health(settings: Settings, build: Callable[[], Running]) -> FastAPI:
    """Build a worker of what runs its jobs. Raises ConfigurationError."""
    if settings.job_concurrency == 0:
        raise ConfigurationError("JOB_CONCURRENCY: a worker with 0 would run nothing; set it, or --concurrency")
    logs.configure(settings)
    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan(build))
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    app.include_router(health.router)
    return app
