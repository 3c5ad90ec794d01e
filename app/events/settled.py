"""Up to which number all events are there that ever will be.

PostgreSQL numbers an event when it is written, not when it is committed: one with a lower number may appear later. Who
reads the events of more than one document in the order of their numbers must therefore stop at a settled one, or would
miss some.
"""

import time
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from app.events.models import events

_LATEST = select(func.coalesce(func.max(events.c.seq), 0))
# Who writes an event locks the table before the event gets its number, and until after the commit.
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE granted AND mode = 'RowExclusiveLock' AND relation = "
    "'events'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
LAG = 60.0  # seconds after which every transaction of this service has ended, by the database's timeouts


class Note(NamedTuple):
    """The latest event that was there at a moment, and the transactions that may have been writing others."""

    latest: int
    writers: frozenset[str]
    at: float

    def is_settled(self, later: "Note") -> bool:
        """Whether all events up to `latest` were there at the later moment: all the writers had ended."""
        return not self.writers & later.writers or later.at - self.at > LAG


def note(conn: Connection) -> Note:
    """What is there now. On SQLite, where one writes after the other, that is settled at once."""
    at, latest = time.monotonic(), conn.scalar(_LATEST) or 0
    writers = conn.scalars(_WRITERS) if conn.dialect.name == "postgresql" else ()
    return Note(latest, frozenset(writers), at)
