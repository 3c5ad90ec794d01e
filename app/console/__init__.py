"""The console: pages for people, at /console. They need no script, and do what the API does."""

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from app.console import feed, other, overview, reference
from app.console.account import keys, sessions, show, sign_in
from app.console.documents import actions, document, files, listing, pictures, previous, selection, upload
from app.console.frame.pages import SHARED, STATIC
from app.console.jobs import actions as job_actions, bulk as all_jobs, listing as jobs
from app.console.webhooks import actions as webhook_actions, listing as webhooks
from app.settings import Settings
from app.web.docs import CACHED, Assets

ROUTERS = (
    sign_in.router,
    overview.router,
    listing.router,
    upload.reading,
    upload.writing,
    document.router,
    files.router,
    pictures.router,
    previous.reading,
    previous.writing,
    previous.deleting,
    actions.writing,
    actions.processing,
    actions.deleting,
    jobs.router,
    all_jobs.router,
    job_actions.router,
    webhooks.router,
    webhook_actions.router,
    keys.reading,
    keys.writing,
    show.reading,
    show.writing,
    selection.reading,
    selection.writing,
    selection.processing,
    selection.deleting,
    sessions.reading,
    sessions.writing,
    reference.router,
    feed.router,
    feed.operators,
    other.router,
)


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the console, if the settings ask for it."""
    if not settings.has_console:
        return

    for name in SHARED:
        app.add_route(f"/console/static/{name}", _shared, include_in_schema=False)
    app.mount("/console/static", Assets(directory=STATIC))
    for router in ROUTERS:
        app.routes.extend(router.routes)


async def _shared(request: Request) -> Response:
    return FileResponse(SHARED[request.url.path.rpartition("/")[2]], headers=CACHED)
