"""The application: `uvicorn app.main:app`, or `python -m app serve`."""

import gc
from importlib import import_module

from fastapi import FastAPI

from app import wiring
from app.accounts import routes as accounts
from app.audit import routes as audit
from app.auth import routes as auth
from app.auth.keys import routes as keys
from app.auth.schemas import Credentials, TokenForm
from app.documents import (
    feed_routes as feed,
    picture_routes as pictures,
    routes as documents,
    trash_routes as trash,
    upload_routes as uploads,
)
from app.documents.file_versions import routes as file_versions
from app.documents.file_versions.schemas import FileForm, SentFile
from app.documents.schemas import UploadForm
from app.events import DocumentEvent
from app.operators import hold_routes as holds, job_routes as all_jobs, routes as operators
from app.processing import batch_routes as batches, file_routes as result_files, routes as processing
from app.processing.stages.pipeline import AD_HOC
from app.processing.stages.schemas import PipelineParams, PipelineResult
from app.remote import routes as remote
from app.server import health
from app.server.lifespan import lifespan
from app.settings import Settings, load
from app.telemetry import logs
from app.web import cors, docs, front, openapi, problems
from app.web.middleware import RequestMiddleware
from app.webhooks import describe, routes as webhooks
from app.webhooks.payloads import MESSAGES
from app.wiring import adapters

# Routes are matched in this order: a fixed path before one with a parameter, then what is asked for most often.
ROUTERS = (
    uploads.router,
    batches.router,
    documents.reading,
    processing.reading,
    result_files.reading,
    pictures.router,
    documents.writing,
    processing.processing,
    trash.writing,
    trash.deleting,
    file_versions.reading,
    file_versions.writing,
    file_versions.deleting,
    feed.router,
    webhooks.router,
    auth.router,
    auth.reading,
    auth.writing,
    keys.reading,
    keys.writing,
    audit.own,
    audit.reading,
    uploads.public,
    accounts.router,
    all_jobs.router,
    operators.router,
    holds.router,
    *remote.ROUTERS,
    health.router,
)

# What the service may be without: each is a package that installs itself.
FEATURES = (
    "app.console",
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises ConfigurationError for settings that do not allow this process to run."""
    settings = settings or load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json, file=settings.log_file)
    app = FastAPI(
        **openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        root_path=settings.prefix,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # each request would ask whether it is wanted
        lifespan=lifespan(lambda: wiring.build(settings)),
        # In one flat list: `include_router` would nest them, and every request would be matched against the router and
        # then the route.
        routes=[route for router in ROUTERS for route in router.routes],
    )
    https = settings.public_url.startswith("https:")
    app.add_middleware(RequestMiddleware, https=https, prefix=settings.prefix)
    if settings.cors_origins:
        cors.install(app, settings.cors_origins.split(","))
    problems.install(app)
    docs.install(app)
    front.install(app, settings.public_url, has_console=settings.has_console and bool(FEATURES))
    processors = adapters.offered(settings)
    openapi.install(
        app,
        [Credentials, TokenForm, UploadForm, FileForm, SentFile, DocumentEvent, *MESSAGES.values()],
        [*processors.values(), *adapters.pipelines(settings, processors).values()],
        openapi.AdHoc(AD_HOC, PipelineParams, PipelineResult),
        describe.webhooks(),
    )

    for feature in FEATURES:
        import_module(feature).install(app, settings)
    return app


app = create_app()
# What is imported and built so far lives as long as the process. Frozen, it is skipped by the garbage collector: a full
# collection takes 1 ms, not 80.
gc.freeze()
