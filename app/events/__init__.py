"""Append-only events: the audit trail, a document's timeline, and one log line for each change.

An event is written in the transaction of the change that it records, so every change that happened has exactly one
event, and a change that did not happen has none. `catalogue` says what can happen.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Connection, Uuid, bindparam, func, insert, literal_column, select
from uuid_utils.compat import uuid7

from app.database import Database, Prepared, after_commit, now, time_of
from app.events import signing
from app.events.catalogue.base import Event
from app.events.models import DocumentEvent, TimelineItem, TimelinePage, events
from app.telemetry import context
from app.web.client import network_of

__all__ = ["DocumentEvent", "TimelineItem", "TimelinePage", "events"]

log = structlog.get_logger()

_APPEND_EACH = insert(events).inline()
_APPEND = Prepared(_APPEND_EACH)
_SUBJECT = ("user_id", "document_id", "job_id", "request_id")
_LATEST = select(events.c.seq, events.c.id).where(events.c.seq == select(func.max(events.c.seq)).scalar_subquery())


class Record(NamedTuple):
    """An event as it was appended: by whom, what it is about, and its data as JSON can hold it."""

    id: UUID
    event: Event
    actor: str
    data: dict[str, Any]
    user_id: UUID | None
    document_id: UUID | None
    job_id: UUID | None
    request_id: str | None


Listener = Callable[[Connection, Record], None]


class _Concern(NamedTuple):
    """Tells whether the owner of what an event is about is concerned."""

    insert: Prepared
    """Inserts an event, and tells in the same round trip, of which there are none on SQLite."""

    ask: Prepared
    """Gives a row if so, for less than INSERT … RETURNING takes on SQLite."""


class _Subscription(NamedTuple):
    listener: Listener
    to: Collection[type[Event]] | None = None
    concern: _Concern | None = None


def subscribe(
    db: Database,
    listener: Listener,
    *,
    to: Collection[type[Event]] | None = None,
    only_if: Callable[[ColumnElement[UUID]], ColumnElement[bool]] | None = None,
) -> None:
    """Have the listener called for every event of this database, in its transaction and after its row is inserted.

    Or only for events `to` which it subscribes, and `only_if` a condition on the event's `user_id` is true, for which
    others hardly pay. One subscription may have such a condition. What the listener writes is committed with the event
    or not at all; what it raises undoes the change.
    """
    concern = None
    if only_if:
        assert not any(each.concern for each in db.listeners)
        # Not the column itself: in the INSERT, it would be that of any event.
        inserted, asked = literal_column("events.user_id", Uuid()), bindparam("user_id", type_=Uuid())
        insert = Prepared(_APPEND_EACH.returning(only_if(inserted).label("concerned")))
        concern = _Concern(insert, Prepared(select(literal_column("1")).where(only_if(asked))))
    db.listeners.append(_Subscription(listener, to, concern))


def append(
    conn: Connection,
    event: Event,
    *,
    user_id: UUID | None = None,
    document_id: UUID | None = None,
    job_id: UUID | None = None,
    **logged: Any,
) -> None:
    """Insert an event in the current transaction, with the actor and the request id of the context.

    It is logged after the commit, together with what is `logged` only.
    """
    row = _row(conn, event, user_id, document_id, job_id)
    hearing = _hearing(conn, event)
    if not _insert(conn, row, hearing):
        hearing = [each for each in hearing if each.concern is None]
    _announce(conn, event, row, hearing)
    _log(conn, event, row, logged)


def log_only(
    conn: Connection,
    event: Event,
    *,
    user_id: UUID | None = None,
    document_id: UUID | None = None,
    job_id: UUID | None = None,
    **logged: Any,
) -> None:
    """Log an event after the commit as `append` does, and record nothing."""
    row = {"actor": _actor(), "data": event.data, "user_id": user_id, "document_id": document_id, "job_id": job_id}
    _log(conn, event, row | {"request_id": context.request_id.get()}, logged)


def append_each(conn: Connection, event: Event, documents: Iterable[tuple[UUID, UUID]]) -> None:
    """Append the same event for each of many documents in one round trip. `documents`: pairs of user id and document
    id."""
    append_all(conn, [(event, *document, None) for document in documents])


def append_all(conn: Connection, happened: Iterable[tuple[Event, UUID, UUID, UUID | None]]) -> None:
    """Append events in one round trip, each with a user id, a document id, and the id of a job or None."""
    rows = [(event, _row(conn, event, *about)) for event, *about in happened]
    if rows:
        conn.execute(_APPEND_EACH, [row for _, row in rows])
    concerned = cache(lambda concern, user_id: bool(concern.ask.all(conn, {"user_id": user_id})))
    for event, row in rows:
        hearing = [
            each for each in _hearing(conn, event) if each.concern is None or concerned(each.concern, row["user_id"])
        ]
        _announce(conn, event, row, hearing)
        _log(conn, event, row, {})


def _row(
    conn: Connection, event: Event, user_id: UUID | None, document_id: UUID | None, job_id: UUID | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": uuid7(),
        "event": event.name,
        "at": time_of(conn),
        "actor": _actor(),
        "data": event.data,
        "user_id": user_id,
        "document_id": document_id,
        "job_id": job_id,
        "request_id": context.request_id.get(),
        "ip": network_of(context.client.get()),
        "credential_id": context.credential.get(),
    }
    keys = signing.keys_of(conn)
    row["mac"] = signing.mac_of(keys[0], row) if keys else None
    return row


def _actor() -> str:
    actor = context.actor.get()
    assert actor is not None, "an event without an actor"
    return actor


def _hearing(conn: Connection, event: Event) -> list[_Subscription]:
    """Who subscribes to such an event."""
    subscriptions: list[_Subscription] = conn.get_execution_options().get("listeners", [])
    return [each for each in subscriptions if each.to is None or type(event) in each.to]


def _insert(conn: Connection, row: dict[str, Any], hearing: Iterable[_Subscription]) -> bool:
    """Insert an event. Whether the listener that has a condition is concerned."""
    concern = next((each.concern for each in hearing if each.concern), None)
    if concern and conn.dialect.name == "postgresql":
        return bool((concern.insert.one(conn, row) or {}).get("concerned"))
    _APPEND.count(conn, row)
    return concern is not None and bool(concern.ask.all(conn, {"user_id": row["user_id"]}))


def _announce(conn: Connection, event: Event, row: dict[str, Any], hearing: Iterable[_Subscription]) -> None:
    for each in hearing:
        each.listener(conn, Record(**{name: row[name] for name in Record._fields} | {"event": event}))


def _log(conn: Connection, event: Event, row: dict[str, Any], logged: Mapping[str, Any]) -> None:
    subject = {name: str(row[name]) for name in _SUBJECT if row[name] is not None}
    told = {"actor": row["actor"], **subject, **row["data"], **logged}
    after_commit(conn, partial(getattr(log, event.level), event.name, **told))


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


def owner_of(conn: Connection, event: Reference) -> UUID | None:
    """Return whose document the event is about; None if there is no such event."""
    found = (events.c.seq == event.seq, events.c.id == event.id, events.c.document_id.is_not(None))
    return conn.scalar(select(events.c.user_id).where(*found))


def timeline(conn: Connection, document_id: UUID, *, after: int, limit: int) -> list[tuple[int, TimelineItem]]:
    """Up to `limit` events of a document with a sequence number above `after`, oldest first."""
    query = (
        select(events)
        .where(events.c.document_id == document_id, events.c.seq > after)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [(row.seq, TimelineItem.model_validate(row)) for row in conn.execute(query)]


def latest_of(conn: Connection, document_id: UUID, limit: int) -> list[TimelineItem]:
    """The latest events of a document, up to `limit`, oldest first."""
    of_document = select(events).where(events.c.document_id == document_id)
    rows = conn.execute(of_document.order_by(events.c.seq.desc()).limit(limit)).all()
    return [TimelineItem.model_validate(row) for row in reversed(rows)]


_OF_OWNER = Prepared(
    select(events)
    .where(
        events.c.user_id == bindparam("owner"),
        events.c.seq > bindparam("after"),
        events.c.seq <= bindparam("upto"),
        events.c.document_id.is_not(None),
    )
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)


def of_owner(conn: Connection, owner_id: UUID, *, after: int, upto: int, limit: int) -> list[tuple[int, DocumentEvent]]:
    """Up to `limit` events of the owner's documents with a number above `after`, up to `upto`, oldest first."""
    rows = _OF_OWNER.all(conn, {"owner": owner_id, "after": after, "upto": upto, "limit": limit})
    return [(row["seq"], DocumentEvent.model_validate(row)) for row in rows]
