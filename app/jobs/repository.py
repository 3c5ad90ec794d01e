"""SQL that adds jobs and reads them; `transitions.py` moves them on. Functions run inside the caller's transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, func, insert, select, union_all

from app import events
from app.database import Prepared, delete_batch, now, without_index
from app.events.catalogue.base import Event
from app.events.catalogue.jobs import JobQueued
from app.jobs.models import HELD_STATES, IS_ENDED, IS_HELD, IS_LIVE, IS_QUEUED, LIVE, Job, JobState, jobs
from app.jobs.turns import NEXT_TURN
from app.telemetry import context

_ID = select(jobs).where(jobs.c.id == bindparam("id"))
_BY_ID = Prepared(_ID)
_OF_OWNER = Prepared(_ID.where(jobs.c.owner_id == bindparam("owner")))


class NewJob(NamedTuple):
    """What a job is made of. At most one live job has a `key`; `document_id` says whose timeline it belongs to."""

    id: UUID
    kind: str
    queue: str
    args: Mapping[str, Any]
    owner_id: UUID
    max_tries: int
    key: str | None = None
    document_id: UUID | None = None


def get(conn: Connection, job_id: UUID, owner_id: UUID | None = None) -> Job | None:
    """A job; only of this owner, if one is given."""
    row = (_BY_ID if owner_id is None else _OF_OWNER).one(conn, {"id": job_id, "owner": owner_id})
    return Job.of(row) if row else None


def live_of(owner: ColumnElement[UUID], at_most: Any, *, beside: Any) -> Select[Any]:
    """As `live_count` counts them. A query of the owner's table may have this as a scalar subquery."""

    def some(queue: ColumnElement[bool]) -> Select[Any]:
        return select(jobs.c.id).correlate_except(jobs).where(jobs.c.owner_id == owner, IS_LIVE, queue)

    # Two ranges of an index: however many jobs are in the queue between them, none is read.
    ranges = union_all(some(jobs.c.queue < beside), some(jobs.c.queue > beside))
    return select(func.count().label("live")).select_from(ranges.limit(at_most).subquery())


_LIVE_OF_OWNER = Prepared(
    live_of(
        bindparam("owner", type_=jobs.c.owner_id.type),
        bindparam("at_most"),
        beside=bindparam("beside", type_=jobs.c.queue.type),
    )
)


def live_count(conn: Connection, owner_id: UUID, at_most: int, *, beside: str = "") -> int:
    """The number of an owner's jobs that are not finished, beside those of one queue; no more than `at_most` are
    counted."""
    row = _LIVE_OF_OWNER.one(conn, {"owner": owner_id, "at_most": at_most, "beside": beside})
    assert row is not None
    return int(row["live"])


def finished(conn: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the jobs that are no longer live."""
    return list(conn.scalars(select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.state.not_in(LIVE))))


def last_settled(conn: Connection, document_id: UUID, kind: str) -> Job | None:
    """The latest job of this kind for the document that succeeded or failed. None: there was none."""
    query = (
        select(jobs)
        .where(
            jobs.c.document_id == document_id,
            jobs.c.kind == kind,
            without_index(jobs.c.state).in_((JobState.SUCCEEDED, JobState.FAILED)),
        )
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(1)
    )
    row = conn.execute(query).mappings().one_or_none()
    return Job.of(row) if row else None


def live(conn: Connection, owner_id: UUID, kinds: Collection[str], limit: int) -> list[UUID]:
    """Up to `limit` live jobs of the owner, of these kinds."""
    theirs = (jobs.c.owner_id == owner_id, jobs.c.state.in_(LIVE), jobs.c.kind.in_(kinds))
    return list(conn.scalars(select(jobs.c.id).where(*theirs).limit(limit)))


_REMOVE = Prepared(delete(jobs).where(jobs.c.id == bindparam("job")))


def remove(conn: Connection, job_id: UUID) -> None:
    """Delete a job that has ended, of a kind that keeps a record of its own."""
    _REMOVE.count(conn, {"job": job_id})


def remove_of_owner(conn: Connection, owner_id: UUID) -> bool:
    """Delete a batch of the owner's jobs. Whether there may be more."""
    return bool(delete_batch(conn, jobs, jobs.c.owner_id == owner_id, oldest=jobs.c.created_at))


_ENQUEUE = Prepared(
    insert(jobs)
    .values(
        state=JobState.QUEUED,
        fence=0,
        tries=0,
        run_at=now(),
        queued_at=now(),
        turn=NEXT_TURN,
        progress=0.0,
        dead=False,
        created_at=now(),
    )
    .returning(jobs)
)


def enqueue(conn: Connection, new: NewJob, event: JobQueued, head: float | None = None) -> Job:
    """Insert a QUEUED job that is due now, and append its event. `head`: what `Turns.head` tells of its queue."""
    turn = {"of_owner": new.owner_id, "of_queue": new.queue, "head": head}
    job = Job.of(_ENQUEUE.one(conn, {**new._asdict(), "request_id": context.request_id.get(), **turn}))
    record(conn, event, job)
    return job


class Totals(NamedTuple):
    """What there is of all owners."""

    by_state: Mapping[str, int]
    dead: int

    queued_for: float
    """Seconds since the oldest job that is still queued was due; 0 with none."""

    running_for: float
    """Seconds since the first attempt of the job that has been at work for longest; 0 with none."""


def totals(conn: Connection, *, beside: str = "") -> Totals:
    """Count the jobs, and find the oldest, beside those of one queue, of which none is kept once it has ended."""
    found = dict.fromkeys(map(str, JobState), 0)
    others = jobs.c.queue != beside
    for states in ([IS_ENDED], [IS_HELD, others]):  # each has an index of its own
        found |= dict(conn.execute(select(jobs.c.state, func.count()).where(*states).group_by(jobs.c.state)).all())
    found[JobState.QUEUED] = conn.scalar(select(func.count()).where(IS_QUEUED, others)) or 0
    dead = conn.scalar(select(func.count()).where(jobs.c.dead.is_(True))) or 0
    queued_for = _age(conn, jobs.c.run_at, IS_QUEUED, jobs.c.run_at <= now(), others)
    return Totals(found, dead, queued_for, _age(conn, jobs.c.started_at, IS_HELD, others))


def due_for(conn: Connection, queue: str) -> float:
    """Seconds since the oldest job that is still queued in a queue was due; 0 with none."""
    return _age(conn, jobs.c.run_at, IS_QUEUED, jobs.c.queue == queue, jobs.c.run_at <= now())


def _age(conn: Connection, moment: ColumnElement[Any], *where: ColumnElement[bool]) -> float:
    """Seconds since the earliest such moment of these jobs; 0 with none."""
    oldest = conn.execute(select(func.min(moment).label("at"), now().label("now")).where(*where)).one()
    return (oldest.now - oldest.at).total_seconds() if oldest.at else 0.0


def unserved(conn: Connection, queues: Sequence[str], seconds: float) -> dict[str, int]:
    """Queues other than these, each with the number of its jobs that have been due for so many seconds."""
    query = (
        select(jobs.c.queue, func.count())
        .where(IS_QUEUED, jobs.c.run_at <= now(-seconds), jobs.c.queue.not_in(queues))
        .group_by(jobs.c.queue)
    )
    return dict(conn.execute(query).all())


def idle(conn: Connection, queues: Sequence[str]) -> dict[str, int]:
    """Those of the queues from which nobody holds a job, each with the number of its jobs that are due."""
    held = jobs.alias("held")
    busy = select(held.c.queue).where(held.c.state.in_(HELD_STATES), held.c.queue.in_(queues))
    due = (IS_QUEUED, jobs.c.run_at <= now(), jobs.c.queue.in_(queues), jobs.c.queue.not_in(busy))
    return dict(conn.execute(select(jobs.c.queue, func.count()).where(*due).group_by(jobs.c.queue)).all())


def record(conn: Connection, event: Event, job: Job, **logged: Any) -> None:
    """Append an event of this job, or only log it. Actor and request id are those of the context; for `logged` see
    `events.append`."""
    subject = {"user_id": job.owner_id, "document_id": job.document_id, "job_id": job.id}
    tell = events.append if job.on_timeline else events.log_only
    tell(conn, event, **subject, processor=job.processor, **logged)
