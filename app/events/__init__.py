"""Append-only events: the audit trail, a document's timeline, and one log line for each change.

An event is written in the transaction of the change that it records, so every change that happened has exactly one
event, and a change that did not happen has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, Uuid, func, insert, select
from uuid_utils.compat import uuid7

from app.database import Prepared, UTCDateTime, after_commit, metadata, now
from app.telemetry import context
from app.web.pagination import Page

log = structlog.get_logger()

events = Table(
    "events",
    metadata,
    # Orders the events of one document even within a millisecond: an event is written after the change of the
    # document's row, so under that row's lock.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Uuid, nullable=False),
    Column("event", String(50), nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("request_id", String(64)),
    Column("user_id", Uuid),
    Column("document_id", Uuid),
    Column("job_id", Uuid),
    Column("data", JSON, nullable=False),
    Index(None, "document_id", "seq"),
    sqlite_autoincrement=True,
)


class TimelineItem(BaseModel):
    """One event of a document."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "01939f3e-5c00-7000-8000-000000000003",
                "event": "document.status_changed",
                "at": "2026-11-21T12:00:00.000Z",
                "actor": "user:01939f3e-5c00-7000-8000-000000000009",
                "request_id": "01939f3e-5c00-7000-8000-000000000004",
                "job_id": "01939f3e-5c00-7000-8000-000000000002",
                "data": {"old": "UPLOADED", "new": "PROCESSING"},
            }
        },
    )

    id: UUID
    event: str
    at: datetime
    actor: str
    request_id: str | None
    job_id: UUID | None
    data: dict[str, Any]


class TimelinePage(Page[TimelineItem]):
    """A page of a document's timeline."""


_APPEND_EACH = insert(events).values(at=now()).inline()
_APPEND = Prepared(_APPEND_EACH)
_LATEST = select(events.c.seq, events.c.id).where(events.c.seq == select(func.max(events.c.seq)).scalar_subquery())


def append(
    conn: Connection,
    event: str,
    *,
    actor: str | None = None,
    user_id: UUID | None = None,
    document_id: UUID | None = None,
    job_id: UUID | None = None,
    request_id: str | None = None,
    **data: Any,
) -> None:
    """Insert an event in the current transaction; its log line is written after the commit.

    `actor` is `user:<id>`, `worker:<name>` or `operator`. Without an actor or a request id, those of the current
    context are recorded.
    """
    actor = actor or context.actor.get()
    assert actor is not None, "an event without an actor"
    request_id = request_id or context.request_id.get()
    subject = {"user_id": user_id, "document_id": document_id, "job_id": job_id, "request_id": request_id}
    _APPEND.count(conn, {"id": uuid7(), "event": event, "actor": actor, "data": data, **subject})
    _log_after_commit(conn, event, actor, subject, data)


def append_each(conn: Connection, event: str, *, actor: str, documents: Iterable[tuple[UUID, UUID]]) -> None:
    """Add the same event for each of many documents, given as pairs of the user's id and the document's, in one round
    trip."""
    subjects = [{"user_id": user_id, "document_id": document_id} for user_id, document_id in documents]
    if subjects:
        rows = [{"id": uuid7(), "event": event, "actor": actor, "data": {}, **subject} for subject in subjects]
        conn.execute(_APPEND_EACH, rows)
    for subject in subjects:
        _log_after_commit(conn, event, actor, subject, {})


def _log_after_commit(
    conn: Connection, event: str, actor: str, subject: Mapping[str, UUID | str | None], data: Mapping[str, Any]
) -> None:
    logged = {key: str(value) for key, value in subject.items() if value is not None}
    after_commit(conn, partial(log.info, event, actor=actor, **logged, **data))


class Reference(NamedTuple):
    """An event, as somebody outside of the database may name it. No other database has one of this number and id."""

    seq: int
    id: UUID


def latest(conn: Connection) -> Reference | None:
    """The event with the highest number; None if nothing ever happened."""
    row = conn.execute(_LATEST).one_or_none()
    return Reference(*row) if row else None


def happened_within(conn: Connection, event: Reference, seconds: float) -> bool | None:
    """Whether the event happened in the last so many seconds; None if it never did in this database."""
    found = select(events.c.at > now(-seconds)).where(events.c.seq == event.seq, events.c.id == event.id)
    recent = conn.scalar(found)
    return None if recent is None else bool(recent)


def document_ids(conn: Connection, names: Sequence[str], ids: Sequence[UUID]) -> set[UUID]:
    """Those of the documents that an event of one of the names is about."""
    query = select(events.c.document_id).where(events.c.document_id.in_(ids), events.c.event.in_(names))
    return set(conn.scalars(query))


def timeline(conn: Connection, document_id: UUID, *, after: int, limit: int) -> list[tuple[int, TimelineItem]]:
    """Up to `limit` events of a document with a sequence number above `after`, oldest first."""
    query = (
        select(events)
        .where(events.c.document_id == document_id, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [(row.seq, TimelineItem.model_validate(row)) for row in conn.execute(query)]
