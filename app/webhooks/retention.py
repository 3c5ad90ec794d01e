"""How long what was sent is remembered."""

from functools import partial

from sqlalchemy import Connection, exists

from app.database import Database, delete_batch, delete_expired, now
from app.webhooks.models import deliveries, messages


async def forget(db: Database, ttl: float) -> None:
    """Delete deliveries that were over more than `ttl` seconds ago, with their attempts, and messages as old that none
    is left of."""
    await delete_expired(db, deliveries.c.finished_at, kept=ttl)
    while await db.write(partial(_forget_messages, ttl=ttl)):
        pass


def _forget_messages(conn: Connection, ttl: float) -> bool:
    """Delete a batch. Whether there may be more."""
    old = (messages.c.created_at <= now(-ttl), ~exists().where(deliveries.c.event_id == messages.c.event_id))
    return bool(delete_batch(conn, messages, *old, oldest=messages.c.created_at))
