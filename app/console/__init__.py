"""The console: pages for people, at /console. They need no script, and do what the API does."""

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from app.console import feed, other, overview
from app.console.account import sessions, sign_in
from app.console.documents import actions, document, files, listing, upload
from app.console.frame.pages import STATIC
from app.console.operators import accounts, audit, bulk, documents, health, jobs, workers
from app.settings import Settings
from app.web.docs import CACHED, Assets
from app.web.pages import STYLE

ROUTERS = (
    sign_in.router,
    overview.router,
    listing.router,
    upload.reading,
    upload.writing,
    document.router,
    files.router,
    actions.writing,
    actions.processing,
    actions.deleting,
    sessions.reading,
    sessions.writing,
    feed.router,
    feed.operators,
    health.router,
    accounts.router,
    documents.router,
    bulk.router,  # before the jobs, whose ids the names of its paths are not
    jobs.router,
    workers.router,
    audit.router,
    other.router,
)


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the console, if the settings ask for it."""
    if not settings.has_console:
        return

    @app.get(f"/console/static/{STYLE.name}", include_in_schema=False)
    async def style() -> Response:
        return FileResponse(STYLE, headers=CACHED)

    app.mount("/console/static", Assets(directory=STATIC))
    for router in ROUTERS:
        app.routes.extend(router.routes)
