"""SQL on endpoints, and on what is sent to them. Functions run inside the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Float,
    Integer,
    RowMapping,
    Select,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from app.database import BATCH, Prepared, delete_batch, now, unix_time, without_index
from app.jobs import transitions
from app.jobs.models import jobs
from app.webhooks.models import DeliveryState, EndpointState, attempts, deliveries, endpoints, messages

ADVANCED = 500  # deliveries that are advanced in one transaction
_SHOWN = (
    *(each for each in endpoints.c if each.name not in {"secret", "previous_secret", "probe_at"}),
    (endpoints.c.previous_until > now()).label("rotating"),
)


def of_owner(owner_id: UUID) -> Select[Any]:
    """The query for the endpoints of an owner, without their secrets."""
    return select(*_SHOWN).where(endpoints.c.owner_id == owner_id)


def get(conn: Connection, owner_id: UUID, endpoint_id: UUID) -> RowMapping | None:
    """An owner's endpoint, without its secrets."""
    return conn.execute(of_owner(owner_id).where(endpoints.c.id == endpoint_id)).mappings().one_or_none()


def count(conn: Connection, owner_id: UUID) -> int:
    """How many endpoints an owner has."""
    return conn.scalar(select(func.count()).where(endpoints.c.owner_id == owner_id)) or 0


def add(conn: Connection, **values: Any) -> None:
    """Insert an endpoint."""
    state = {"state": EndpointState.ACTIVE, "version": 1, "created_at": now(), "updated_at": now()}
    conn.execute(insert(endpoints).values(**values, **state))


def edit(
    conn: Connection, owner_id: UUID, endpoint_id: UUID, versions: frozenset[int] | None, changes: Mapping[str, Any]
) -> bool:
    """Change an endpoint if it still has one of these `versions` (any if None), and return whether it had."""
    at = [endpoints.c.id == endpoint_id, endpoints.c.owner_id == owner_id]
    if versions is not None:
        at.append(endpoints.c.version.in_(versions))
    if not changes:
        return bool(conn.scalar(select(exists().where(*at))))
    values = {**changes, "version": endpoints.c.version + 1, "updated_at": now()}
    return conn.execute(update(endpoints).where(*at).values(**values)).rowcount == 1


def rotate(conn: Connection, owner_id: UUID, endpoint_id: UUID, secret: bytes, previous_valid_for: float) -> bool:
    """Replace the secret. False: it would still sign, and so does the one before."""
    at = [endpoints.c.id == endpoint_id, endpoints.c.owner_id == owner_id]
    kept = {"previous_secret": None, "previous_until": None}
    if previous_valid_for:
        at.append(or_(endpoints.c.previous_until.is_(None), endpoints.c.previous_until <= now()))
        kept = {"previous_secret": endpoints.c.secret, "previous_until": now(previous_valid_for)}  # type: ignore[dict-item]
    values = {"secret": secret, **kept, "version": endpoints.c.version + 1, "updated_at": now()}
    return conn.execute(update(endpoints).where(*at).values(**values)).rowcount == 1


def remove(conn: Connection, endpoint_id: UUID) -> bool:
    """Delete an endpoint with its deliveries, whose jobs end when they are due, or a batch of those. Whether it is
    gone."""
    batch = delete_batch(conn, deliveries, deliveries.c.endpoint_id == endpoint_id, oldest=deliveries.c.created_at)
    if len(batch) == BATCH:
        return False
    conn.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))
    return True


class Sending(NamedTuple):
    """A delivery that is to be made: what, and where."""

    event_id: UUID
    body: bytes
    url: str
    state: EndpointState
    secret: bytes
    previous_secret: bytes | None
    """None once it signs no more."""

    failing_for: float | None
    """Seconds since which there were nothing but failures. None: the last attempt went well."""

    probing: bool | None
    """Whether somebody else tries, or has just failed."""


_SENDING = Prepared(
    select(
        messages.c.event_id,
        messages.c.body,
        endpoints.c.url,
        endpoints.c.state,
        endpoints.c.secret,
        case((endpoints.c.previous_until > now(), endpoints.c.previous_secret)).label("previous_secret"),
        (unix_time(now()) - unix_time(endpoints.c.failing_since)).label("failing_for"),
        (endpoints.c.probe_at > now()).label("probing"),
    )
    .select_from(deliveries)
    .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
    .join(messages, messages.c.event_id == deliveries.c.event_id)
    .where(deliveries.c.id == bindparam("delivery"))
)


def sending(conn: Connection, delivery_id: UUID) -> Sending | None:
    """What is to be sent. None: the endpoint was deleted."""
    row = _SENDING.one(conn, {"delivery": delivery_id})
    if row is None:
        return None
    failing_for = None if row["failing_for"] is None else max(0.0, float(row["failing_for"]))
    return Sending(**row | {"failing_for": failing_for})


_PROBE = Prepared(
    update(endpoints)
    .where(
        endpoints.c.id == bindparam("endpoint"),
        endpoints.c.state == EndpointState.ACTIVE,
        endpoints.c.failing_since.is_not(None),
        or_(endpoints.c.probe_at.is_(None), endpoints.c.probe_at <= now()),
    )
    .values(probe_at=now(bindparam("longest", type_=Float)))
)


def begin_probe(conn: Connection, endpoint_id: UUID, longest: float) -> bool:
    """Be the one who tries a failing endpoint, for `longest` seconds. False: somebody else is, or just was."""
    return _PROBE.count(conn, {"endpoint": endpoint_id, "longest": longest}) == 1


_RECOVERED = Prepared(
    update(endpoints)
    .where(endpoints.c.id == bindparam("endpoint"), endpoints.c.failing_since.is_not(None))
    .values(failing_since=None, probe_at=None)
)


def forgive(conn: Connection, endpoint_id: UUID) -> bool:
    """After a success: forget all failures. Whether there were any."""
    return _RECOVERED.count(conn, {"endpoint": endpoint_id}) == 1


def fail(conn: Connection, endpoint_id: UUID, url: str, probe_in: float) -> None:
    """After a failure at this address: let somebody try again in `probe_in` seconds, one at a time."""
    values = {"failing_since": func.coalesce(endpoints.c.failing_since, now()), "probe_at": now(probe_in)}
    conn.execute(update(endpoints).where(endpoints.c.id == endpoint_id, endpoints.c.url == url).values(**values))


def disable(conn: Connection, endpoint_id: UUID, url: str, reason: str, failing_for: float) -> bool:
    """Disable an endpoint that has failed for so many seconds at this address. Whether it was now."""
    at = (endpoints.c.id == endpoint_id, endpoints.c.url == url, endpoints.c.state != EndpointState.DISABLED)
    long = endpoints.c.failing_since <= now(-failing_for)
    version = endpoints.c.version + 1
    values = {"state": EndpointState.DISABLED, "disabled_reason": reason, "version": version, "updated_at": now()}
    return conn.execute(update(endpoints).where(*at, long).values(**values)).rowcount == 1


_ATTEMPT = Prepared(insert(attempts).inline())
_FINISH = Prepared(
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery"), deliveries.c.state == DeliveryState.PENDING)
    .values(state=bindparam("new"), finished_at=now())
)
# Locks it: its endpoint cannot be deleted, and it with it, before the attempt is there.
_LOCK = Prepared(
    update(deliveries).where(deliveries.c.id == bindparam("delivery")).values(event_id=deliveries.c.event_id)
)


def record_attempt(conn: Connection, delivery_id: UUID, fence: int, **values: Any) -> bool:
    """Insert an attempt. False: the delivery was deleted with its endpoint."""
    there = _LOCK.count(conn, {"delivery": delivery_id}) == 1
    if there:
        _ATTEMPT.count(conn, {"delivery_id": delivery_id, "fence": fence, **values})
    return there


def finish(conn: Connection, delivery_id: UUID, state: DeliveryState) -> bool:
    """End a delivery. False: it was deleted with its endpoint."""
    return _FINISH.count(conn, {"delivery": delivery_id, "new": state}) == 1


_PENDING = Prepared(
    select(func.count().label("number")).select_from(
        select(deliveries.c.id)
        .where(deliveries.c.endpoint_id == bindparam("endpoint"), deliveries.c.state == DeliveryState.PENDING)
        .limit(bindparam("at_most", type_=Integer))
        .subquery()
    )
)


def pending(conn: Connection, endpoint_id: UUID, at_most: int) -> int:
    """How many deliveries to an endpoint are pending; no more than `at_most` are counted."""
    row = _PENDING.one(conn, {"endpoint": endpoint_id, "at_most": at_most})
    assert row is not None, "a count gives one row"
    return int(row["number"])


class Place(NamedTuple):
    """Where a delivery stands among those to its endpoint."""

    created_at: datetime
    id: UUID


def advance(conn: Connection, endpoint_id: UUID, after: Place | None) -> Place | None:
    """Have up to ADVANCED deliveries `after` a place that wait for later made as soon as may be. The place of the last
    one; None if there are no more."""
    by = (deliveries.c.created_at, deliveries.c.id)
    waiting = (
        select(*by)
        .join(jobs, jobs.c.id == deliveries.c.id)
        .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.state == DeliveryState.PENDING)
        .where(jobs.c.run_at > now(), jobs.c.locked_until.is_(None))
        .order_by(*by)
        .limit(ADVANCED)
    )
    if after:
        end = tuple_(bindparam("at", after.created_at, by[0].type), bindparam("last", after.id, by[1].type))
        waiting = waiting.where(tuple_(*by) > end)
    found = [Place(*row) for row in conn.execute(waiting)]
    transitions.advance(conn, [each.id for each in found])
    return found[-1] if len(found) == ADVANCED else None


def about(owner_id: UUID, event_ids: Sequence[UUID], limit: int) -> Select[Any]:
    """The query for the deliveries that tell of events of an owner's, the latest first."""
    query = _deliveries().where(deliveries.c.event_id.in_(event_ids), messages.c.owner_id == owner_id)
    return query.order_by(without_index(deliveries.c.created_at).desc()).limit(limit)


def matching(
    endpoint_id: UUID,
    *,
    state: DeliveryState | None = None,
    type: str | None = None,  # noqa: A002 - the query parameter's name
    document_id: UUID | None = None,
) -> Select[Any]:
    """The query for the deliveries to an endpoint that match every filter that is given."""
    query = _deliveries().where(deliveries.c.endpoint_id == endpoint_id)
    filters = {deliveries.c.state: state, messages.c.type: type, messages.c.document_id: document_id}
    return query.where(*(column == value for column, value in filters.items() if value is not None))


def _deliveries() -> Select[Any]:
    return (
        select(deliveries, messages.c.type, messages.c.document_id, jobs.c.run_at)
        .join(messages, messages.c.event_id == deliveries.c.event_id)
        .outerjoin(jobs, jobs.c.id == deliveries.c.id)
    )


def attempts_of(conn: Connection, delivery_id: UUID) -> Sequence[RowMapping]:
    """The attempts to make a delivery, the first one first."""
    query = select(attempts).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.fence)
    return conn.execute(query).mappings().all()


def message_of(conn: Connection, event_id: UUID) -> bytes:
    """The body of the message about an event."""
    return bytes(conn.execute(select(messages.c.body).where(messages.c.event_id == event_id)).scalar_one())


def remove_of_owner(conn: Connection, owner_id: UUID) -> bool:
    """Delete a batch of the messages of an owner, with their deliveries. Whether there may be more."""
    return bool(delete_batch(conn, messages, messages.c.owner_id == owner_id, oldest=messages.c.created_at))
