"""The console: pages for people, at /console. They need no script, and do what the API does."""

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from app.console import account, documents, feed, jobs, operators, other, overview, reference, webhooks
from app.console.frame.pages import SHARED, STATIC
from app.settings import Settings
from app.web.docs import CACHED, Assets

ROUTERS = (
    overview.router,
    *documents.ROUTERS,
    *jobs.ROUTERS,
    *webhooks.ROUTERS,
    *account.ROUTERS,
    *operators.ROUTERS,
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
