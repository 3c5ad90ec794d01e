"""Documents: the list, each one, uploads, and what forms do with them."""

from app.console.documents import actions, document, files, listing, pictures, previous, selection, upload

ROUTERS = (
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
    selection.reading,
    selection.writing,
    selection.processing,
    selection.deleting,
)
