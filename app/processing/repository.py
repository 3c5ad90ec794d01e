"""SQL over jobs: the only module that writes `jobs.state`. Runs inside the caller's transaction.

Whatever a runner writes is fenced: it matches the job only while the runner's own claim is the latest and live.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    Select,
    Update,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from app import events
from app.database import Prepared, now, without_index
from app.documents.schemas import Document, Failure
from app.processing.models import ENDED, LIVE, JobState, jobs
from app.processing.schemas import Job, JobFilters
from app.web.pagination import Keyset

_SETTLED = ("job.succeeded", "job.failed", "job.retried", "job.released")  # told with the fence, but by a sweeper
_OF_ID = select(jobs).where(jobs.c.id == bindparam("id"))
_BY_ID = Prepared(_OF_ID)
_OF_OWNER = Prepared(_OF_ID.where(jobs.c.owner_id == bindparam("owner")))
HORIZON = 600.0  # seconds, twice as far as any lease, hint or retry is ever set ahead


class Work(NamedTuple):
    """What is to be done: a processor's name and version, and its complete params."""

    processor: str
    version: str
    params: dict[str, Any]


def get(conn: Connection, job_id: UUID, owner_id: UUID | None = None) -> Job | None:
    """A job; of this owner, if one is given."""
    row = (_BY_ID if owner_id is None else _OF_OWNER).one(conn, {"id": job_id, "owner": owner_id})
    return Job.model_validate(row) if row else None


def page(conn: Connection, owner_id: UUID, filters: JobFilters, after: Keyset | None, limit: int) -> list[Job]:
    """Up to `limit` jobs of the owner that follow `after`, newest first."""
    query = select(jobs).where(jobs.c.owner_id == owner_id)
    if filters.state is not None:
        # The index of the dead holds fewer than that of any state.
        query = query.where((without_index(jobs.c.state) if filters.dead else jobs.c.state) == filters.state)
    if filters.dead is not None:
        query = query.where(jobs.c.dead.is_(filters.dead))
    if after is not None:
        end = tuple_(bindparam("at", after.value, jobs.c.created_at.type), bindparam("last", after.id, jobs.c.id.type))
        query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < end)
    query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    return [Job.model_validate(row) for row in conn.execute(query)]


def finished(conn: Connection, job_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the jobs that are no longer live."""
    return list(conn.scalars(select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.state.not_in(LIVE))))


_ENQUEUE = Prepared(
    insert(jobs)
    .values(
        state=JobState.QUEUED,
        fence=0,
        tries=0,
        run_at=now(),
        hint_at=now(bindparam("hint_after", type_=Float)),
        progress=0.0,
        dead=False,
        created_at=now(),
    )
    .returning(jobs)
)


def enqueue(
    conn: Connection, job_id: UUID, document: Document, work: Work, *, max_tries: int, hint_after: float
) -> Job:
    """Insert a QUEUED job. Its first hint follows the commit; from `hint_after` seconds on a sweeper sends others, or
    at once the first, if it is 0: there is nobody here to send it to."""
    values = {
        "id": job_id,
        "document_id": document.id,
        "owner_id": document.owner_id,
        "processor": work.processor,
        "processor_version": work.version,
        "params": work.params,
        "max_tries": max_tries,
        "hint_after": hint_after,
        "request_id": events.current_request_id(),
    }
    job = Job.model_validate(_ENQUEUE.one(conn, values))
    tell(conn, "job.queued", job, f"user:{job.owner_id}", processor=work.processor)
    return job


def _reached(moment: Column[datetime]) -> ColumnElement[bool]:
    """Whether a moment has come, or lies so far ahead that the clock must have been put back since it was set.

    Such a moment means nothing any more, and to wait for it could take as long as the clock was put back.
    """
    return or_(*_ends(moment))


def _ends(moment: Column[datetime]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return moment <= now(), moment > now(HORIZON)


_CLAIM = Prepared(
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.state == JobState.QUEUED, _reached(jobs.c.run_at))
    .values(
        state=JobState.RUNNING,
        fence=jobs.c.fence + 1,
        tries=jobs.c.tries + 1,
        progress=0.0,
        locked_until=now(bindparam("lease", type_=Float)),
        started_at=func.coalesce(jobs.c.started_at, now()),
    )
    .returning(jobs)
)


def claim(conn: Connection, job_id: UUID, worker: str, lease: float) -> Job | None:
    """Take a due job for `lease` seconds. None: it is not due, not queued, or somebody else has it."""
    row = _CLAIM.one(conn, {"job": job_id, "locked_by": worker, "lease": lease})
    job = Job.model_validate(row) if row else None
    if job:
        tell(conn, "job.started", job, f"worker:{worker}", attempt=job.attempt, fence=job.fence)
    return job


def pass_on(conn: Connection, job_id: UUID) -> None:
    """Let the next sweep, of any process, announce a queued job."""
    conn.execute(_hint([job_id], jobs.c.run_at))


# What a runner writes, by `_fenced`.
_HELD = update(jobs).where(
    jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("claim"), jobs.c.state == JobState.RUNNING
)
_RENEW = Prepared(_HELD.values(locked_until=now(bindparam("lease", type_=Float))))
_LEAVE = _HELD.values(locked_by=None, locked_until=None)
_FINISH = Prepared(_LEAVE.values(state=bindparam("final"), finished_at=now()))
_LATER = now(bindparam("delay", type_=Float))
_REQUEUE = Prepared(
    _LEAVE.values(state=JobState.QUEUED, tries=jobs.c.tries - bindparam("refund"), run_at=_LATER, hint_at=_LATER)
)


def heartbeat(conn: Connection, job: Job, lease: float, progress: float) -> bool:
    """Renew the lease. False: it is lost, and the work must stop."""
    return _fenced(conn, job, _RENEW, lease=lease, progress=progress)


def finish(conn: Connection, job: Job, state: JobState, *, error: Failure | None = None, dead: bool = False) -> bool:
    """End a job under its fence. False: the lease was lost and the job is somebody else's, or ended."""
    failure = error.model_dump() if error else None
    reached = {"progress": 1.0} if state is JobState.SUCCEEDED else {}
    return _fenced(conn, job, _FINISH, final=state, error=failure, dead=dead, **reached)


def requeue(conn: Connection, job: Job, *, delay: float, refund: int = 0, error: Failure | None = None) -> bool:
    """Give a running job back under its fence, to be claimed after `delay` seconds. False: as with `finish`."""
    failure = error.model_dump() if error else None
    return _fenced(conn, job, _REQUEUE, delay=delay, refund=refund, error=failure)


def cancel(conn: Connection, owner_id: UUID, job_id: UUID, error: Failure) -> Job | None:
    """End a live job of this owner. None: there is none."""
    row = conn.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.owner_id == owner_id, jobs.c.state.in_(LIVE))
        .values(
            state=JobState.CANCELLED, finished_at=now(), locked_by=None, locked_until=None, error=error.model_dump()
        )
        .returning(jobs)
    ).one_or_none()
    return Job.model_validate(row) if row else None


def was_settled(conn: Connection, job: Job) -> bool:
    """Whether the runner's own claim was settled before, as the job's events tell."""
    of_job = (events.events.c.document_id == job.document_id, events.events.c.job_id == job.id)
    told = conn.scalars(select(events.events.c.data).where(*of_job, events.events.c.event.in_(_SETTLED)))
    return any(data.get("fence") == job.fence for data in told)


def requeue_lost(conn: Connection) -> list[Job]:
    """Put jobs whose lease ran out back into the queue, due now, while they have tries left."""
    lost = (
        update(jobs)
        .where(*_expired(), jobs.c.tries < jobs.c.max_tries)
        .values(state=JobState.QUEUED, run_at=now(), hint_at=now(), locked_by=None, locked_until=None)
        .returning(jobs)
    )
    return [Job.model_validate(row) for row in conn.execute(lost)]


def bury_lost(conn: Connection, error: Failure) -> list[Job]:
    """End jobs whose lease ran out on their last try."""
    lost = (
        update(jobs)
        .where(*_expired(), jobs.c.tries >= jobs.c.max_tries)
        .values(
            state=JobState.FAILED,
            dead=True,
            error=error.model_dump(),
            finished_at=now(),
            locked_by=None,
            locked_until=None,
        )
        .returning(jobs)
    )
    return [Job.model_validate(row) for row in conn.execute(lost)]


def lost_and_due(conn: Connection) -> tuple[bool, bool]:
    """Whether there are jobs to take back, and jobs to announce; spares the others a write transaction when not."""
    lost = _any_reached(JobState.RUNNING, jobs.c.locked_until)
    due = _any_reached(JobState.QUEUED, jobs.c.hint_at)
    any_lost, any_due = conn.execute(select(lost, due)).one()
    return any_lost, any_due


def take_due(conn: Connection, limit: int, repeat_after: float, *, repeats: bool = True) -> list[UUID]:
    """Jobs to announce now, oldest first; each is left alone by every sweeper for the next `repeat_after` seconds.

    Without `repeats` only those that no hint was sent for since they were to be run, or to be run again.
    """
    due = [jobs.c.state == JobState.QUEUED, _reached(jobs.c.hint_at)]
    if not repeats:
        due.append(jobs.c.hint_at <= jobs.c.run_at)
    # Sweepers in other processes take other jobs, where the database can lock rows; without waiting for each other.
    some = select(jobs.c.id).where(*due).order_by(jobs.c.hint_at).limit(limit).with_for_update(skip_locked=True)
    return sorted(conn.scalars(_hint(some, now(repeat_after)).returning(jobs.c.id)))


def forget_hints(conn: Connection) -> None:
    """Have every queued job announced, also if that was done lately."""
    hinted = (jobs.c.state == JobState.QUEUED, jobs.c.hint_at > jobs.c.run_at)
    some = select(jobs.c.id).where(*hinted).with_for_update(skip_locked=True)
    conn.execute(_hint(some, jobs.c.run_at))


def counts(conn: Connection) -> tuple[dict[str, int], float]:
    """Jobs by state, and the age in seconds of the oldest that is due and still queued (0 with none)."""
    ended = conn.execute(select(jobs.c.state, func.count()).where(ENDED).group_by(jobs.c.state)).all()
    live = {str(state): conn.scalar(select(func.count()).where(jobs.c.state == state)) or 0 for state in LIVE}
    due = [jobs.c.state == JobState.QUEUED, jobs.c.run_at <= now()]
    oldest = conn.execute(select(func.min(jobs.c.run_at).label("run_at"), now().label("now")).where(*due)).one()
    states = {**dict.fromkeys(map(str, JobState), 0), **dict(ended), **live}
    return states, (oldest.now - oldest.run_at).total_seconds() if oldest.run_at else 0.0


def tell(conn: Connection, event: str, job: Job, actor: str, **data: Any) -> None:
    """Append an event of this job, under the request that began it."""
    events.append(
        conn,
        event,
        actor=actor,
        user_id=job.owner_id,
        document_id=job.document_id,
        job_id=job.id,
        request_id=job.request_id,
        **data,
    )


def _hint(job_ids: Select[tuple[UUID]] | list[UUID], at: ColumnElement[datetime]) -> Update:
    """Set when queued jobs are to be announced (again)."""
    return update(jobs).where(jobs.c.id.in_(job_ids), jobs.c.state == JobState.QUEUED).values(hint_at=at)


def _fenced(conn: Connection, job: Job, statement: Prepared, **values: Any) -> bool:
    """Write to a job that is held. False: it is not any more."""
    return statement.count(conn, {"job": job.id, "claim": job.fence, **values}) == 1


def _expired() -> tuple[ColumnElement[bool], ...]:
    return jobs.c.state == JobState.RUNNING, _reached(jobs.c.locked_until)


def _any_reached(state: JobState, moment: Column[datetime]) -> ColumnElement[bool]:
    """Whether a job's moment is reached: a look at either end of an index, however long the queue between them is."""
    return or_(*(exists().where(jobs.c.state == state, end) for end in _ends(moment)))
