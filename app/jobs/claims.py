"""SQL that finds jobs that are due, and claims them for this process.

A claim costs a few entries of an index, however many jobs are queued and whosoever they are.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Select,
    Uuid,
    bindparam,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
    union_all,
)

from app.database import Prepared, after_commit, now
from app.events.catalogue.jobs import JobStarted
from app.jobs import pauses, repository, transitions
from app.jobs.capacity import Capacity
from app.jobs.models import HELD_STATES, IS_HELD, IS_QUEUED, IS_UNCLAIMED, Job, jobs
from app.jobs.pauses import Pause
from app.jobs.turns import is_waiting
from app.telemetry import context, metrics

_WINDOW = 256  # jobs at the head of a queue that a claim looks at one by one
_NOBODY = UUID(int=0)


class Poll(NamedTuple):
    """What a poll of the table found, at the database's time `at`."""

    heads: Mapping[str, float | None]
    """The lowest turn of the due jobs of each queue."""

    waiting: datetime | None
    """Since when the first job that has no turn yet has been due."""

    expired: bool
    """Whether a lease has expired."""

    paused: Sequence[Pause]
    """What nobody may claim from."""

    at: datetime


def poll(
    conn: Connection, queues: Sequence[str], turn_since: float, due_since: datetime, expired_since: datetime
) -> Poll:
    """Whether there is something to claim from these queues, or to rescue: a few entries of an index each.

    What is before the given turn and moments is known to be claimed, or to have its turn, or to be rescued. Skipping
    it matters under a long snapshot on PostgreSQL, which keeps every dead entry of an index.
    """
    values = {"turn_since": turn_since, "due_since": due_since, "expired_since": expired_since}
    found = _polling(tuple(queues)).one(conn, values)
    assert found is not None, "a SELECT of expressions gives one row"
    heads = {queue: found.pop(f"head_{number}") for number, queue in enumerate(queues)}
    return Poll(heads, paused=pauses.current(conn), **found)


@cache
def _polling(queues: tuple[str, ...]) -> Prepared:
    heads = [
        _in_turn(queue, jobs.c.turn).limit(1).scalar_subquery().label(f"head_{number}")
        for number, queue in enumerate(queues)
    ]
    first = [
        select(jobs.c.run_at).where(*is_waiting(queue)).order_by(jobs.c.run_at).limit(1).subquery() for queue in queues
    ]
    waiting = union_all(*(select(each) for each in first)).subquery()
    oldest: ColumnElement[Any] = select(func.min(waiting.c.run_at)).scalar_subquery() if queues else null()
    since = bindparam("expired_since", type_=jobs.c.locked_until.type)
    expired = exists().where(IS_HELD, jobs.c.locked_until <= now(), jobs.c.locked_until >= since)
    oldest = type_coerce(oldest, jobs.c.run_at.type)
    return Prepared(select(*heads, oldest.label("waiting"), expired.label("expired"), now().label("at")))


def claim_due(conn: Connection, capacity: Capacity, lease: float, turn_since: float) -> list[Job]:
    """Claim as many due jobs as there is capacity for, for the context's actor and `lease` seconds.

    They are claimed in turn; the jobs of an owner who gets no more now are passed over. Each claim raises the fence and
    uses up a try. `turn_since`: as in `poll`.
    """
    room = capacity.copy()  # this may be run again
    claimed: list[Job] = []
    for found in _offers(conn, room, turn_since):
        ids = [each["id"] for each in found if room.take(each["owner_id"], each["queue"])]
        if ids:
            claimed += transitions.start(conn, ids, lease)
    _record(conn, claimed)
    return claimed


_ONE = Prepared(
    select(jobs.c.id, jobs.c.queue)
    .where(jobs.c.id == bindparam("job"), IS_QUEUED, jobs.c.run_at <= now())
    .with_for_update(skip_locked=True)
)


def claim_one(conn: Connection, job_id: UUID, queues: Collection[str], lease: float) -> Job | None:
    """Claim this very job as `claim_due` does, whoever's turn it is. None: it is not due, or in none of the queues."""
    found = _ONE.one(conn, {"job": job_id})
    if found is None or found["queue"] not in queues:
        return None
    claimed = transitions.start(conn, [job_id], lease)
    _record(conn, claimed)
    return claimed[0]


def overdue(conn: Connection, queue: str, seconds: float, at_most: int) -> list[UUID]:
    """The next jobs of a queue that have been due for so many seconds."""
    found = _in_turn(queue, jobs.c.id).where(jobs.c.run_at <= now(-seconds)).limit(at_most)
    return list(conn.scalars(found, {"turn_since": 0.0}))


def _record(conn: Connection, claimed: Sequence[Job]) -> None:
    for job in claimed:
        waited = max(0.0, (job.locked_at - job.run_at).total_seconds()) if job.locked_at else 0.0
        if job.on_timeline:
            after_commit(conn, partial(metrics.job_wait.labels(job.processor).observe, waited))
        with context.acting(request=job.request_id):
            started = JobStarted(attempt=job.tries, fence=job.fence)
            repository.record(conn, started, job, wait_seconds=round(waited, 3))


def _offers(conn: Connection, room: Capacity, turn_since: float) -> Iterator[list[dict[str, Any]]]:
    """Due jobs that there may be room for, locked; each time others than before, until no more come into question."""
    again = room.any_free
    while again:
        refused = {queue: room.refused(queue) for queue in room.queues}
        width = Capacity.MAX_REFUSED if any(refused.values()) else 0
        found = _first(room.queues, width).all(conn, _values(room, refused, width, turn_since))
        yield found
        # Whoever was refused meanwhile may have hidden others.
        again = room.any_free and any(room.refused(queue) - refused[queue] for queue in room.queues)
    if room.any_free and any(map(room.refused, room.queues)):
        refused = {queue: room.refused(queue) for queue in room.queues}
        yield _first_of_each_owner(room.queues).all(conn, _values(room, refused, Capacity.MAX_REFUSED, turn_since))


def _values(room: Capacity, refused: Mapping[str, set[UUID]], width: int, turn_since: float) -> dict[str, Any]:
    values: dict[str, Any] = {"turn_since": turn_since}
    for number, queue in enumerate(room.queues):
        values[f"limit_{number}"] = room.free(queue)
        if width:
            owners = [*refused[queue], *[_NOBODY] * width][:width]
            values |= {f"refused_{number}_{index}": owner_id for index, owner_id in enumerate(owners)}
    return values


def _in_turn(queue: str, *columns: ColumnElement[Any]) -> Select[Any]:
    """Due jobs of a queue in the order of their turns."""
    # A process that knows no turns may have put off a job that has one.
    due = (*_is_queued(queue), jobs.c.run_at <= now())
    return select(*columns).where(*due).order_by(jobs.c.turn, jobs.c.run_at)


def _is_queued(queue: str) -> Sequence[ColumnElement[bool]]:
    since = bindparam("turn_since", type_=Float)
    return IS_UNCLAIMED, jobs.c.queue == literal(queue, jobs.c.queue.type), jobs.c.turn >= since


_OFFERED = (jobs.c.id, jobs.c.owner_id, jobs.c.queue, jobs.c.turn, jobs.c.run_at)


@cache
def _first(queues: tuple[str, ...], refused: int) -> Prepared:
    """Jobs at the heads of the queues, but for those of so many owners."""
    some = []
    for number, queue in enumerate(queues):
        offered = _in_turn(queue, *_OFFERED)
        if refused:
            end = func.coalesce(_end_of_window(queue), literal(float("inf")))
            offered = offered.where(_is_admitted(number, refused), jobs.c.turn <= end)
        some.append(offered)
    return _locked(some)


def _end_of_window(queue: str) -> ColumnElement[Any]:
    """The turn up to which a claim looks at each job. NULL: to the end of the queue."""
    in_turn = select(jobs.c.turn).where(*_is_queued(queue)).order_by(jobs.c.turn, jobs.c.run_at)
    return in_turn.offset(_WINDOW).limit(1).scalar_subquery()


@cache
def _first_of_each_owner(queues: tuple[str, ...]) -> Prepared:
    """The first job of each owner in the queues that are longer than the window, but for those who are refused.

    From owner to owner by the index of live jobs: one who has 100,000 of them costs as much as one who has a single
    one.
    """
    owners = (
        select(literal(_NOBODY, Uuid()).label("id"))
        .where(or_(*(_end_of_window(queue).is_not(None) for queue in queues)))
        .cte("owners", recursive=True)
    )
    other, own = jobs.alias("other"), jobs.alias("own")
    # By `finished_at` and not by state: PostgreSQL, with statistics of an empty queue, would sort all that is queued.
    next_owner = (
        select(other.c.owner_id)
        .where(other.c.finished_at.is_(None), other.c.owner_id > owners.c.id)
        .order_by(other.c.owner_id)
        .limit(1)
        .scalar_subquery()
    )
    owners = owners.union_all(select(next_owner).where(owners.c.id.is_not(None)))
    some = []
    for number, queue in enumerate(queues):
        first = (
            select(own.c.id)
            .where(
                own.c.finished_at.is_(None),
                own.c.owner_id == owners.c.id,
                own.c.queue == literal(queue, jobs.c.queue.type),
                own.c.turn >= bindparam("turn_since", type_=Float),
                own.c.state.not_in(HELD_STATES),
                own.c.run_at <= now(),
            )
            .order_by(own.c.turn)
            .limit(1)
            .scalar_subquery()
        )
        offered = select(*_OFFERED).select_from(owners.join(jobs, jobs.c.id == first))
        some.append(offered.where(_is_admitted(number, Capacity.MAX_REFUSED)).order_by(jobs.c.turn, jobs.c.run_at))
    return _locked(some)


def _is_admitted(number: int, refused: int) -> ColumnElement[bool]:
    owners = [bindparam(f"refused_{number}_{index}", type_=jobs.c.owner_id.type) for index in range(refused)]
    return jobs.c.owner_id.not_in(owners)


def _locked(some: Sequence[Select[Any]]) -> Prepared:
    """Up to `limit_<number>` of each, in turn; what others are claiming is passed over."""
    limited = [
        each.limit(bindparam(f"limit_{number}", type_=Integer)).with_for_update(of=jobs, skip_locked=True).subquery()
        for number, each in enumerate(some)
    ]
    offered = union_all(*(select(each) for each in limited)).subquery()
    return Prepared(
        select(offered.c.id, offered.c.owner_id, offered.c.queue).order_by(offered.c.turn, offered.c.run_at)
    )
