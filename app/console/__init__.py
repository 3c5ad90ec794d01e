"""The console: pages for people, at /console. They need no script, and do what the API does through its services."""

from fastapi import FastAPI

from app.console import actions, document, documents, files, other, overview, sessions, sign_in, upload
from app.console.pages import STATIC
from app.settings import Settings
from app.web.docs import Assets

ROUTERS = (
    sign_in.router,
    overview.router,
    documents.router,
    upload.reading,
    upload.writing,
    document.router,
    files.router,
    actions.writing,
    actions.processing,
    actions.deleting,
    sessions.reading,
    sessions.writing,
    other.router,
)


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the console, if the settings ask for it."""
    if settings.has_console:
        app.mount("/console/static", Assets(directory=STATIC))
        for router in ROUTERS:
            app.routes.extend(router.routes)
