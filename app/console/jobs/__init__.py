"""Jobs: the list, each one, and all that match."""

from app.console.jobs import actions, bulk, listing

ROUTERS = (
    listing.router,
    bulk.router,
    actions.router,
)
