"""Webhooks: the list, each one with the log of its deliveries, and what forms do with them."""

from app.console.webhooks import actions, listing

ROUTERS = (
    listing.router,
    actions.router,
)
