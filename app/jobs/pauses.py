"""Queues that an operator has paused: nobody claims from them. Attempts under way go on, and work is accepted.

Each process learns of it by its polls. A claim that was made before the next of them may still begin.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Column, Connection, String, Table, delete, select

from app.database import Prepared, UTCDateTime, insert_on_conflict, metadata, now
from app.telemetry import context

MAX_REASON = 200  # characters

pauses = Table(
    "pauses",
    metadata,
    # What the names of the queues begin with: they end with a version, which does not matter here.
    Column("queues", String(120), primary_key=True),
    Column("reason", String(MAX_REASON)),
    Column("actor", String(100), nullable=False),
    Column("since", UTCDateTime, nullable=False),
)

_ALL = Prepared(select(pauses).order_by(pauses.c.queues))


class Pause(NamedTuple):
    """A pause of the queues whose names begin with `queues`."""

    queues: str
    reason: str | None
    actor: str
    since: datetime


def current(conn: Connection) -> list[Pause]:
    """All that is paused."""
    return [Pause(**row) for row in _ALL.all(conn, {})]


def begin(conn: Connection, queues: str, reason: str | None) -> bool:
    """Pause these queues in the name of the context's actor. False: they were paused before."""
    pause = {"queues": queues, "reason": reason, "actor": context.actor.get(), "since": now()}
    row = insert_on_conflict(conn, pauses).values(pause)
    return bool(conn.execute(row.on_conflict_do_nothing(index_elements=["queues"])).rowcount)


def end(conn: Connection, queues: str) -> bool:
    """Resume these queues. False: they were not paused."""
    return bool(conn.execute(delete(pauses).where(pauses.c.queues == queues)).rowcount)


class Pauses:
    """What the latest poll of this process has found."""

    def __init__(self) -> None:
        self._found: Sequence[Pause] | None = None

    def polled(self, found: Sequence[Pause]) -> None:
        """Note what a poll has found."""
        self._found = found

    @property
    def known(self) -> Sequence[Pause]:
        """What is paused, as far as this process knows."""
        return self._found or ()

    def forbid(self, queue: str) -> bool:
        """Whether this process may not claim from the queue. Before the first poll, that is any."""
        return self._found is None or self.cover(queue)

    def cover(self, queue: str) -> bool:
        """Whether the queue is known to be paused."""
        return any(queue.startswith(pause.queues) for pause in self.known)

    def alarm(self) -> str | None:
        """What is paused, since when, by whom and why; None if nothing is."""
        return "; ".join(map(_line, self.known)) or None


def _line(pause: Pause) -> str:
    queues, since = pause.queues.rstrip("@"), f"{pause.since:%Y-%m-%d %H:%M}"
    return f"{queues} since {since} by {pause.actor}: {pause.reason or 'no reason given'}"
