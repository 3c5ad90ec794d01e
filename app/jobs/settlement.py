"""How a job moves on: the one place that turns what came of an attempt into a state and an event.

Settling is open to whoever holds (job id, fence), in this process or outside. Each function is part of one transaction.
Where the lease was lost, the fence holds: nothing changes, and a `job.fenced` event says so.
"""

from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from app.database import after_commit
from app.events.catalogue.base import Event
from app.events.catalogue.jobs import (
    JobCancelled,
    JobFailed,
    JobFenced,
    JobLeaseLost,
    JobReleased,
    JobRetried,
    JobSucceeded,
)
from app.events.failure import Failure
from app.jobs import repository as jobs, transitions
from app.jobs.kinds import End, Failed, Kind, Kinds, Outcome, Postponed, Released, Retryable, Succeeded, Waiting
from app.jobs.models import Job, JobState
from app.jobs.repository import record
from app.jobs.transitions import Change
from app.telemetry import context, faults, metrics

CANCELLED_AT_ONCE = 100  # jobs, in one transaction

_LEASE_LOST = Failure(code="lease-lost", detail="The worker fell silent on the last attempt.")
_CANCELLED = Failure(code="job-cancelled", detail="The job was cancelled.")


def settle(conn: Connection, kind: Kind, job: Job, outcome: Outcome, *, seconds: float, unsure: bool = False) -> bool:
    """Write what came of an attempt, which took so many seconds. False: refused, because the lease was lost.

    `unsure`: an earlier call may have committed, though its caller got no answer. If it did, this call changes nothing
    and returns True.
    """
    change, event, end = _consequence(kind, job, outcome)
    held = transitions.change(conn, job, change)
    if not held and unsure and transitions.was_settled(conn, job):
        return True
    if held:
        kind.settled(conn, job, outcome)
    else:
        event, end = JobFenced(fence=job.fence), None
    if event:
        came_of_it = end.outcome if end else event.name.partition(".")[2]
        if job.on_timeline:
            after_commit(conn, partial(metrics.job_run.labels(job.processor, came_of_it).observe, seconds))
        record(conn, event, job, run_seconds=round(seconds, 3))
    if end:
        _follow(conn, kind, job, end)
    faults.hit("finish.before_commit")
    return held


def _consequence(kind: Kind, job: Job, outcome: Outcome) -> tuple[Change, Event | None, End | None]:
    """What the outcome of an attempt changes, with the event of that, and the job's end if it is one."""
    attempt = {"attempt": job.tries, "fence": job.fence}
    match outcome:
        case Succeeded(value, _):
            return Change.succeeded(), JobSucceeded(**attempt), End(JobState.SUCCEEDED, value)
        case Retryable(error, delay) if job.tries < job.max_tries:
            delay = kind.backoff(job.tries) if delay is None else delay
            event = JobRetried(**attempt, delay=round(delay, 2), error=error)
            return Change.retry(error, delay), event, None
        case Failed(error) | Retryable(error):
            dead = isinstance(outcome, Retryable)
            failed = JobFailed(**attempt, dead=dead, error=error)
            return Change.failed(error, dead=dead), failed, End(JobState.FAILED, error=error, dead=dead)
        case Released():
            return Change.released(job.error), JobReleased(**attempt), None
        case Postponed(seconds):
            return Change.postponed(job.error, seconds), None, None
        case Waiting(seconds):
            return Change.waiting(seconds), None, None


def cancel(conn: Connection, kinds: Kinds, owner_id: UUID, job_id: UUID) -> Job | None:
    """End a live job of this owner, of one of these kinds. None: there is none."""
    job = transitions.cancel(conn, owner_id, job_id, kinds, _CANCELLED)
    if job:
        record(conn, JobCancelled(error=_CANCELLED), job, age_seconds=_age(job))
        _follow(conn, kinds[job.kind], job, End(job.state, error=job.error))
    return job


def cancel_some(conn: Connection, kinds: Kinds, owner_id: UUID) -> int:
    """End live jobs of this owner, of these kinds, up to CANCELLED_AT_ONCE. Returns how many it were."""
    found = jobs.live(conn, owner_id, kinds, CANCELLED_AT_ONCE)
    return sum(cancel(conn, kinds, owner_id, job_id) is not None for job_id in found)


def rescue(conn: Connection, kinds: Kinds, *, exhausted: bool) -> list[Job]:
    """Requeue jobs whose lease has expired; or, those of these kinds that are `exhausted` and have no try left, end
    them. Returns the jobs; a batch at the most."""
    rescued = transitions.rescue(conn, kinds, _LEASE_LOST if exhausted else None)
    for job in rescued:
        with context.acting(request=job.request_id):
            lost = JobLeaseLost(attempt=job.tries, fence=job.fence)
            record(conn, lost, job, age_seconds=_age(job))
            after_commit(conn, metrics.leases_lost.inc)
            if job.kind in kinds:
                kinds[job.kind].settled(conn, job, Retryable(_LEASE_LOST))
            if exhausted:
                record(conn, JobFailed(dead=True, error=_LEASE_LOST), job, age_seconds=_age(job))
                _follow(conn, kinds[job.kind], job, End(job.state, error=job.error, dead=True))
    faults.hit("rescue.midway")
    return rescued


def _follow(conn: Connection, kind: Kind, job: Job, end: End) -> None:
    """Let the kind of a job do what follows from its end, and count it."""
    kind.ended(conn, job, end)
    if job.on_timeline:
        after_commit(conn, metrics.jobs_finished.labels(job.processor, end.outcome).inc)


def _age(job: Job) -> float:
    """Seconds from the acceptance of a job that has just ended, or gone back to the queue."""
    return round(((job.finished_at or job.run_at) - job.created_at).total_seconds(), 3)
