"""SQL on the audit trail. Functions run inside the caller's transaction.

Events are numbered as they happen, so a time is found by halving the numbers, and no index of the times is needed. Few
filters have an index, which every event would pay for: without one, a page looks at no more than WINDOW numbers.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, func, select

from app.audit.schemas import Filters
from app.events import events

WINDOW = 50_000  # numbers that one page looks through
_DISORDER = timedelta(minutes=1)  # by which an event may be numbered before an earlier one
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_EXACT = ("actor", "event", "user_id", "document_id", "ip")


class Found(NamedTuple):
    """Events, and the number that the next page begins before; None: there are no more."""

    rows: Sequence[Row[Any]]
    before: int | None


class Span(NamedTuple):
    """The numbers from `first` to `last`."""

    first: int
    last: int


def page(conn: Connection, filters: Filters, before: int | None, limit: int) -> Found:
    """Up to `limit` events that match, the latest first."""
    span = span_of(conn, filters)
    last = span.last if before is None else min(span.last, before - 1)
    first = span.first if filters.document_id else max(span.first, last - WINDOW + 1)
    rows = _latest(conn, _matching(filters, Span(first, last)), limit + 1)
    if len(rows) > limit:
        return Found(rows[:limit], rows[limit - 1].seq)
    return Found(rows, first if first > span.first else None)


def of_account(conn: Connection, user_id: UUID, before: int | None, limit: int) -> Found:
    """Up to `limit` events about an account and none of its documents, the latest first."""
    conditions: list[ColumnElement[bool]] = [events.c.user_id == user_id, events.c.document_id.is_(None)]
    conditions += [events.c.seq < before] if before is not None else []
    rows = _latest(conn, conditions, limit + 1)
    return Found(rows[:limit], rows[limit - 1].seq if len(rows) > limit else None)


def following(conn: Connection, filters: Filters, span: Span) -> Sequence[Row[Any]]:
    """All events in the span that match, the oldest first."""
    return conn.execute(select(events).where(*_matching(filters, span)).order_by(events.c.seq)).all()


def span_of(conn: Connection, filters: Filters) -> Span:
    """The numbers of the events between the filters' times, and of a few around them."""
    lowest, highest = (conn.scalar(select(extreme(events.c.seq))) or 0 for extreme in (func.min, func.max))
    first = _first_since(conn, max(filters.since, _EARLIEST) - _DISORDER, lowest, highest) if filters.since else lowest
    last = _first_since(conn, min(filters.until, _LATEST) + _DISORDER, lowest, highest) if filters.until else highest
    return Span(first, min(last, highest))


def _first_since(conn: Connection, moment: datetime, low: int, high: int) -> int:
    """The number from which on events happened at the moment or later; one above `high` if none did."""
    high += 1
    while low < high:
        middle = (low + high) // 2
        following = select(events.c.at).where(events.c.seq >= middle).order_by(events.c.seq).limit(1)
        at = conn.scalar(following)
        low, high = (middle + 1, high) if at is not None and at < moment else (low, middle)
    return low


def _matching(filters: Filters, span: Span) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [events.c.seq.between(span.first, span.last)]
    exact = ((name, getattr(filters, name)) for name in _EXACT)
    conditions += [events.c[name] == value for name, value in exact if value is not None]
    conditions += [events.c.at >= filters.since] if filters.since else []
    return conditions + ([events.c.at < filters.until] if filters.until else [])


def _latest(conn: Connection, conditions: Sequence[ColumnElement[bool]], limit: int) -> Sequence[Row[Any]]:
    return conn.execute(select(events).where(*conditions).order_by(events.c.seq.desc()).limit(limit)).all()
