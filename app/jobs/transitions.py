"""SQL that moves jobs on: the only module that updates them. Functions run inside the caller's transaction.

Whatever a holder writes is fenced: it matches the job only while the holder's own claim is the latest and live.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Integer,
    and_,
    bindparam,
    case,
    exists,
    func,
    null,
    or_,
    select,
    update,
)

from app.database import Prepared, in_batch, now, unix_time
from app.events.failure import Failure
from app.jobs import turns
from app.jobs.models import IS_HELD, IS_QUEUED, LIVE, Job, JobState, jobs
from app.telemetry import context

_BATCH = 500  # jobs that are rescued in one transaction
_CLOCK_TOLERANCE = 5.0  # seconds by which a moment may lie ahead of the clock that it was taken from

# True of rows that were written before the clock was put back.
_QUEUED_AHEAD = jobs.c.queued_at > now(_CLOCK_TOLERANCE)
_LOCKED_AHEAD = jobs.c.locked_at > now(_CLOCK_TOLERANCE)
_UNLOCKED = {"locked_by": None, "locked_at": None, "locked_until": None}
_ENDS = {"finished_at": now(), **_UNLOCKED}


def start(conn: Connection, ids: Sequence[UUID], lease: float) -> list[Job]:
    """Claim jobs that were found QUEUED in this transaction, and locked, for the context's actor and `lease` seconds.

    Each claim raises the fence and uses up a try.
    """
    width = 1 << (len(ids) - 1).bit_length()  # few different statements; to name a job twice changes nothing
    values: dict[str, Any] = {f"id_{number}": ids[min(number, len(ids) - 1)] for number in range(width)}
    values |= {"locked_by": context.actor.get(), "lease": lease}
    return [Job.of(row) for row in _starting(width).all(conn, values)]


@cache
def _starting(width: int) -> Prepared:
    ids = [bindparam(f"id_{number}", type_=jobs.c.id.type) for number in range(width)]
    # They are locked since they were found QUEUED. To ask for the state again could have PostgreSQL read all of the
    # queue for each claim, with statistics of an empty one.
    return Prepared(
        update(jobs)
        .where(jobs.c.id.in_(ids))
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


_HELD_BY_CLAIM = update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("claim"), IS_HELD)
_LATER = now(bindparam("delay", type_=Float))
_RENEW = Prepared(_HELD_BY_CLAIM.values(progress=bindparam("done"), locked_at=now(), locked_until=_LATER))


def heartbeat(conn: Connection, job: Job, lease: float, progress: float) -> bool:
    """Renew the lease for `lease` seconds. False: it is lost, and the work must stop."""
    return _RENEW.count(conn, {"job": job.id, "claim": job.fence, "delay": lease, "done": progress}) == 1


_PROGRESS = Prepared(_HELD_BY_CLAIM.values(progress=bindparam("done")))


def note_progress(conn: Connection, job: Job, progress: float) -> bool:
    """Record how far a held job is, in the transaction that records what was done. False: the lease is lost."""
    return _PROGRESS.count(conn, {"job": job.id, "claim": job.fence, "done": progress}) == 1


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
    def postponed(cls, error: Failure | None, delay: float) -> Self:
        """Back to the queue as `released`, to be claimed after `delay` seconds."""
        return cls(JobState.QUEUED, delay=delay, refund=1, error=error)

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
        turn=case((_BACK_IN_QUEUE, null()), else_=jobs.c.turn),
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
    """Whether the outcome of this very claim was written before. A job that is gone had ended."""
    row = conn.execute(select(jobs.c.settled_fence).where(jobs.c.id == job.id)).one_or_none()
    return row is None or row.settled_fence == job.fence


def advance(conn: Connection, ids: Sequence[UUID]) -> None:
    """Have jobs that wait for later claimed as soon as may be."""
    waiting = (jobs.c.id.in_(ids), IS_QUEUED, jobs.c.run_at > now())
    conn.execute(update(jobs).where(*waiting).values(run_at=now(), queued_at=now(), turn=None))


def rescue(conn: Connection, kinds: Collection[str], error: Failure | None) -> list[Job]:
    """Requeue jobs whose lease has expired and that have tries left, due now. A batch at the most.

    With an `error`: end those of these kinds that have no tries left, with this error.
    """
    expired = [IS_HELD, jobs.c.locked_until <= now()]
    values: dict[str, Any] = {"state": JobState.QUEUED, "run_at": now(), "queued_at": now(), "turn": None, **_UNLOCKED}
    if error:
        expired += [jobs.c.tries >= jobs.c.max_tries, jobs.c.kind.in_(kinds)]
        values = {"state": JobState.FAILED, "dead": True, "error": error.model_dump(), **_ENDS}
    else:
        expired += [jobs.c.tries < jobs.c.max_tries]
    batch = in_batch(conn, jobs, *expired, oldest=jobs.c.locked_until, limit=_BATCH)
    rescued = conn.execute(update(jobs).where(batch).values(**values).returning(jobs))
    return [Job.of(row) for row in rescued.mappings()]


_ONE = update(jobs).where(jobs.c.id == bindparam("job"))
_LAST_OF_OWNER = Prepared(_ONE.values(turn=turns.NEXT_TURN))
_NEXT = Prepared(_ONE.values(turn=turns.HEAD))


def assign_turns(conn: Connection, heads: Mapping[str, float], due_since: datetime) -> bool:
    """Give jobs that are due their turn, by the heads of their queues: a batch at the most. True: there may be more.

    What a shutdown or a lost lease has interrupted comes next, and everything else after its owner's other jobs.
    `due_since`: jobs that were due earlier have their turn.
    """
    found = turns.waiting(tuple(heads)).all(conn, {"due_since": due_since}) if heads else []
    for job in found[: turns.BATCH]:
        values = {"job": job["id"], "head": heads[job["queue"]]}
        if job["interrupted"]:
            _NEXT.count(conn, values)
        else:
            _LAST_OF_OWNER.count(conn, values | {"of_owner": job["owner_id"], "of_queue": job["queue"]})
    return len(found) >= turns.BATCH


def clock_was_put_back(conn: Connection) -> bool:
    """Whether a job was queued or leased at a moment that has not come yet. Reads all that is queued."""
    queued, held = exists().where(IS_QUEUED, _QUEUED_AHEAD), exists().where(IS_HELD, _LOCKED_AHEAD)
    return bool(conn.scalar(select(or_(queued, held))))


def follow_clock(conn: Connection) -> bool:
    """Set moments anew that were set before the clock was put back: as far ahead as each was meant to be.

    Otherwise a retry would wait, and the lease of a dead worker last, for as long as the clock was put back. A batch
    of jobs at the most; True: there may be more.
    """
    waits = {"run_at": now(unix_time(jobs.c.run_at) - unix_time(jobs.c.queued_at)), "queued_at": now(), "turn": None}
    leases = {"locked_until": now(unix_time(jobs.c.locked_until) - unix_time(jobs.c.locked_at)), "locked_at": now()}
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
