"""SQL that moves jobs on: the only module that updates them. Functions run inside the caller's transaction.

Whatever a holder writes is fenced: it matches the job only while the holder's own claim is the latest and live.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)

from app.database import Prepared, in_batch, now, seconds_between
from app.events.catalogue import Failure, JobStarted
from app.jobs import repository
from app.jobs.models import IS_HELD, IS_QUEUED, LIVE, Job, JobState, jobs
from app.telemetry import context

_BATCH = 500  # jobs that are rescued in one transaction
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK_TOLERANCE = 5.0  # seconds by which a moment may lie ahead of the clock that it was taken from

# True of rows that were written before the clock was put back.
_QUEUED_AHEAD = jobs.c.queued_at > now(_CLOCK_TOLERANCE)
_LOCKED_AHEAD = jobs.c.locked_at > now(_CLOCK_TOLERANCE)
_UNLOCKED = {"locked_by": None, "locked_at": None, "locked_until": None}
_ENDS = {"finished_at": now(), **_UNLOCKED}


class Poll(NamedTuple):
    """What a poll of the table found, at the database's time `at`."""

    due: datetime | None
    """Since when the first job that can be claimed has been due."""

    expired: bool
    """Whether a lease has expired."""

    at: datetime


def poll(conn: Connection, queues: Sequence[str], due_since: datetime, expired_since: datetime) -> Poll:
    """Whether there is something to claim from these queues, or to rescue: a few entries of an index each.

    Jobs that were due, and leases that had expired, before the given moments are known to be claimed, or rescued.
    Skipping them matters under a long snapshot on PostgreSQL, which keeps every dead entry of an index.
    """
    found = _polling(tuple(queues)).one(conn, {"due_since": due_since, "expired_since": expired_since})
    assert found is not None, "a SELECT of expressions gives one row"
    return Poll(**found)


@cache
def _polling(queues: tuple[str, ...]) -> Prepared:
    since = bindparam("expired_since", type_=jobs.c.locked_until.type)
    first = [_due(queue).order_by(jobs.c.run_at).limit(1).subquery() for queue in queues]
    due = union_all(*(select(each) for each in first)).subquery()
    oldest: ColumnElement[Any] = select(func.min(due.c.run_at)).scalar_subquery() if queues else null()
    expired = exists().where(IS_HELD, jobs.c.locked_until <= now(), jobs.c.locked_until >= since)
    oldest = type_coerce(oldest, jobs.c.run_at.type)
    return Prepared(select(oldest.label("due"), expired.label("expired"), now().label("at")))


def claim_due(conn: Connection, limits: Mapping[str, int], limit: int, lease: float, due_since: datetime) -> list[Job]:
    """Claim due jobs for the context's actor and `lease` seconds: `limit` at the most, and of each queue at the most
    what `limits` says.

    The longest due come first. Each claim raises the fence and uses up a try. `due_since`: as in `poll`.
    """
    queues = tuple(limits)
    values: dict[str, Any] = {f"limit_{number}": limits[queue] for number, queue in enumerate(queues)}
    values |= {"limit": limit, "locked_by": context.actor.get(), "lease": lease, "due_since": due_since}
    found = [Job.of(row) for row in _claiming(queues).all(conn, values)]
    for job in found:
        with context.acting(request=job.request_id):
            repository.record(conn, JobStarted(attempt=job.tries, fence=job.fence), job)
    return found


@cache
def _claiming(queues: tuple[str, ...]) -> Prepared:
    some = [
        _due(queue)
        .order_by(jobs.c.run_at)
        .limit(bindparam(f"limit_{number}", type_=Integer))
        .with_for_update(skip_locked=True)
        .subquery()
        for number, queue in enumerate(queues)
    ]
    due = union_all(*(select(each) for each in some)).subquery()
    # Materialized, or PostgreSQL may run it once for each row of `jobs`, and pass over what it has claimed before: then
    # there would be no limit, and the cost would be quadratic.
    batch = (
        select(due.c.id)
        .order_by(due.c.run_at)
        .limit(bindparam("limit", type_=Integer))
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    return Prepared(
        update(jobs)
        .where(jobs.c.id.in_(select(batch.c.id)))
        .values(
            state=JobState.RUNNING,
            fence=jobs.c.fence + 1,
            tries=jobs.c.tries + 1,
            progress=0.0,
            locked_by=bindparam("locked_by"),
            locked_at=now(),
            locked_until=now(bindparam("lease", type_=Float)),
            started_at=func.coalesce(jobs.c.started_at, now()),
        )
        .returning(jobs)
    )


def _due(queue: str) -> Select[Any]:
    since = bindparam("due_since", type_=jobs.c.run_at.type)
    name = literal(queue, jobs.c.queue.type)
    return select(jobs.c.id, jobs.c.run_at).where(
        IS_QUEUED, jobs.c.queue == name, jobs.c.run_at <= now(), jobs.c.run_at >= since
    )


_HELD_BY_CLAIM = update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("claim"), IS_HELD)
_LATER = now(bindparam("delay", type_=Float))
_RENEW = Prepared(_HELD_BY_CLAIM.values(progress=bindparam("done"), locked_at=now(), locked_until=_LATER))


def heartbeat(conn: Connection, job: Job, lease: float, progress: float) -> bool:
    """Renew the lease for `lease` seconds. False: it is lost, and the work must stop."""
    return _RENEW.count(conn, {"job": job.id, "claim": job.fence, "delay": lease, "done": progress}) == 1


class Change(NamedTuple):
    """What a holder may do with a job: the parameters of the one statement that writes a held job."""

    state: JobState
    delay: float = 0.0
    refund: int = 0
    error: Failure | None = None
    dead: bool = False

    @classmethod
    def succeeded(cls) -> Self:
        return cls(JobState.SUCCEEDED)

    @classmethod
    def failed(cls, error: Failure, *, dead: bool) -> Self:
        """`dead`: it used up its tries."""
        return cls(JobState.FAILED, error=error, dead=dead)

    @classmethod
    def retry(cls, error: Failure, delay: float) -> Self:
        """Back to the queue, to be claimed after `delay` seconds."""
        return cls(JobState.QUEUED, delay=delay, error=error)

    @classmethod
    def released(cls, error: Failure | None) -> Self:
        """Back to the queue, due now, with the try given back. `error` is that of the attempt before, which stays."""
        return cls(JobState.QUEUED, refund=1, error=error)

    @classmethod
    def waiting(cls, seconds: float) -> Self:
        """Held for `seconds` by somebody outside, under the same fence."""
        return cls(JobState.WAITING, delay=seconds)


_BACK_IN_QUEUE, _OUTSIDE, _OVER, _DONE = (
    bindparam(name, type_=Boolean) for name in ("back_in_queue", "outside", "over", "done")
)
_CHANGE = Prepared(
    _HELD_BY_CLAIM.values(
        state=bindparam("new"),
        tries=jobs.c.tries - bindparam("refund", type_=Integer),
        run_at=case((_BACK_IN_QUEUE, _LATER), else_=jobs.c.run_at),
        queued_at=case((_BACK_IN_QUEUE, now()), else_=jobs.c.queued_at),
        locked_by=case((_OUTSIDE, jobs.c.locked_by), else_=null()),
        locked_at=case((_OUTSIDE, now()), else_=null()),
        locked_until=case((_OUTSIDE, _LATER), else_=null()),
        settled_fence=case((_OUTSIDE, jobs.c.settled_fence), else_=jobs.c.fence),
        finished_at=case((_OVER, now()), else_=null()),
        progress=case((_DONE, 1.0), else_=jobs.c.progress),
        error=bindparam("error"),
        dead=bindparam("dead"),
    )
)


def change(conn: Connection, job: Job, to: Change) -> bool:
    """Write to a held job under its fence. False: the lease was lost, and the job is somebody else's, or has ended."""
    values = {
        "job": job.id,
        "claim": job.fence,
        "new": to.state,
        "back_in_queue": to.state is JobState.QUEUED,
        "outside": to.state is JobState.WAITING,
        "over": not to.state.live,
        "done": to.state is JobState.SUCCEEDED,
        "delay": to.delay,
        "refund": to.refund,
        "error": to.error.model_dump() if to.error else None,
        "dead": to.dead,
    }
    return _CHANGE.count(conn, values) == 1


def was_settled(conn: Connection, job: Job) -> bool:
    """Whether the outcome of this very claim was written before."""
    return conn.scalar(select(jobs.c.settled_fence).where(jobs.c.id == job.id)) == job.fence


def rescue(conn: Connection, kinds: Collection[str], error: Failure | None) -> list[Job]:
    """Requeue jobs whose lease has expired and that have tries left, due now. A batch at the most.

    With an `error`: end those of these kinds that have no tries left, with this error.
    """
    expired = [IS_HELD, jobs.c.locked_until <= now()]
    values: dict[str, Any] = {"state": JobState.QUEUED, "run_at": now(), "queued_at": now(), **_UNLOCKED}
    if error:
        expired += [jobs.c.tries >= jobs.c.max_tries, jobs.c.kind.in_(kinds)]
        values = {"state": JobState.FAILED, "dead": True, "error": error.model_dump(), **_ENDS}
    else:
        expired += [jobs.c.tries < jobs.c.max_tries]
    batch = in_batch(conn, jobs, *expired, oldest=jobs.c.locked_until, limit=_BATCH)
    rescued = conn.execute(update(jobs).where(batch).values(**values).returning(jobs))
    return [Job.of(row) for row in rescued.mappings()]


def clock_was_put_back(conn: Connection) -> bool:
    """Whether a job was queued or leased at a moment that has not come yet. Reads all that is queued."""
    queued, held = exists().where(IS_QUEUED, _QUEUED_AHEAD), exists().where(IS_HELD, _LOCKED_AHEAD)
    return bool(conn.scalar(select(or_(queued, held))))


def follow_clock(conn: Connection) -> bool:
    """Set moments anew that were set before the clock was put back: as far ahead as each was meant to be.

    Otherwise a retry would wait, and the lease of a dead worker last, for as long as the clock was put back. A batch
    of jobs at the most; True: there may be more.
    """
    waits = {"run_at": now(seconds_between(jobs.c.queued_at, jobs.c.run_at)), "queued_at": now()}
    leases = {"locked_until": now(seconds_between(jobs.c.locked_at, jobs.c.locked_until)), "locked_at": now()}
    return _set_anew(conn, and_(IS_QUEUED, _QUEUED_AHEAD), waits) | _set_anew(
        conn, and_(IS_HELD, _LOCKED_AHEAD), leases
    )


def _set_anew(conn: Connection, ahead: ColumnElement[bool], values: Mapping[str, Any]) -> bool:
    batch = in_batch(conn, jobs, ahead, limit=_BATCH)
    return conn.execute(update(jobs).where(batch).values(**values)).rowcount == _BATCH


def cancel(conn: Connection, owner_id: UUID, job_id: UUID, kinds: Collection[str], error: Failure) -> Job | None:
    """End a live job of this owner, of one of these kinds. None: there is none."""
    cancelled = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.owner_id == owner_id, jobs.c.state.in_(LIVE), jobs.c.kind.in_(kinds))
        .values(state=JobState.CANCELLED, error=error.model_dump(), **_ENDS)
        .returning(jobs)
    )
    row = conn.execute(cancelled).mappings().one_or_none()
    return Job.of(row) if row else None
