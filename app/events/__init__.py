"""Append-only events: the audit trail, a document's timeline, and one log line for each change.

An event is written in the transaction of the change that it records, so every change that happened has exactly one
event, and a change that did not happen has none.
"""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, BigInteger, Column, Connection, Index, Integer, String, Table, Uuid, insert, select
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


_APPEND = Prepared(insert(events).values(at=now()).inline())


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
    logged = {key: str(value) for key, value in subject.items() if value is not None}
    after_commit(conn, partial(log.info, event, actor=actor, **logged, **data))


def timeline(conn: Connection, document_id: UUID, *, after: int, limit: int) -> list[tuple[int, TimelineItem]]:
    """Up to `limit` events of a document with a sequence number above `after`, oldest first."""
    query = (
        select(events)
        .where(events.c.document_id == document_id, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [(row.seq, TimelineItem.model_validate(row)) for row in conn.execute(query)]
