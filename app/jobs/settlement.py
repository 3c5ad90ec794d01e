"""How a job moves on: the one place that turns what came of an attempt into a state and an event.

Settling is open to whoever holds (job id, fence), in this process or outside. Each function is part of one transaction.
Where the lease was lost, the fence holds: nothing changes, and a `job.fenced` event says so.
"""

from uuid import UUID

from sqlalchemy import Connection

from app.database import after_commit
from app.events import catalogue
from app.events.catalogue import Event, Failure
from app.jobs import transitions
from app.jobs.kinds import End, Failed, Kind, Kinds, Outcome, Released, Retryable, Succeeded, Waiting
from app.jobs.models import Job, JobState
from app.jobs.repository import record
from app.jobs.transitions import Change
from app.telemetry import context, faults, metrics

_LEASE_LOST = Failure(code="lease-lost", detail="The worker fell silent on the last attempt.")
_CANCELLED = Failure(code="job-cancelled", detail="The job was cancelled.")


def settle(conn: Connection, kind: Kind, job: Job, outcome: Outcome, *, unsure: bool = False) -> bool:
    """Write what came of an attempt. False: refused, because the lease was lost.

    `unsure`: an earlier call may have committed, though its caller got no answer. If it did, this call changes nothing
    and returns True.
    """
    change, event, end = _consequence(kind, job, outcome)
    held = transitions.change(conn, job, change)
    if not held and unsure and transitions.was_settled(conn, job):
        return True
    if not held:
        event, end = catalogue.JobFenced(fence=job.fence), None
        after_commit(conn, metrics.finishes_fenced.inc)
    if event:
        record(conn, event, job)
    if isinstance(event, catalogue.JobRetried):
        after_commit(conn, metrics.jobs_retried.inc)
    if end:
        _follow(conn, kind, job, end)
    faults.hit("finish.before_commit")
    return held


def _consequence(kind: Kind, job: Job, outcome: Outcome) -> tuple[Change, Event | None, End | None]:
    """What the outcome of an attempt changes, with the event of that, and the job's end if it is one."""
    attempt = {"attempt": job.tries, "fence": job.fence}
    match outcome:
        case Succeeded(value):
            return Change.succeeded(), catalogue.JobSucceeded(**attempt), End(JobState.SUCCEEDED, value)
        case Retryable(error) if job.tries < job.max_tries:
            delay = kind.backoff(job.tries)
            event = catalogue.JobRetried(**attempt, delay=round(delay, 2), error=error)
            return Change.retry(error, delay), event, None
        case Failed(error) | Retryable(error):
            dead = isinstance(outcome, Retryable)
            failed = catalogue.JobFailed(**attempt, dead=dead, error=error)
            return Change.failed(error, dead=dead), failed, End(JobState.FAILED, error=error)
        case Released():
            return Change.released(job.error), catalogue.JobReleased(**attempt), None
        case Waiting(seconds):
            return Change.waiting(seconds), None, None


def cancel(conn: Connection, kinds: Kinds, owner_id: UUID, job_id: UUID) -> Job | None:
    """End a live job of this owner, of one of these kinds. None: there is none."""
    job = transitions.cancel(conn, owner_id, job_id, kinds, _CANCELLED)
    if job:
        record(conn, catalogue.JobCancelled(error=_CANCELLED), job)
        _follow(conn, kinds[job.kind], job, End(job.state, error=job.error))
    return job


def rescue(conn: Connection, kinds: Kinds, *, exhausted: bool) -> list[Job]:
    """Requeue jobs whose lease has expired; or, those of these kinds that are `exhausted` and have no try left, end
    them. Returns the jobs; a batch at the most."""
    rescued = transitions.rescue(conn, kinds, _LEASE_LOST if exhausted else None)
    for job in rescued:
        with context.acting(request=job.request_id):
            record(conn, catalogue.JobLeaseLost(attempt=job.tries, fence=job.fence), job)
            after_commit(conn, metrics.leases_lost.inc)
            if exhausted:
                record(conn, catalogue.JobFailed(dead=True, error=_LEASE_LOST), job)
                _follow(conn, kinds[job.kind], job, End(job.state, error=job.error))
    faults.hit("rescue.midway")
    return rescued


def _follow(conn: Connection, kind: Kind, job: Job, end: End) -> None:
    """Let the kind of a job do what follows from its end, and count it."""
    kind.ended(conn, job, end)
    after_commit(conn, metrics.jobs_finished.labels(end.state.lower()).inc)
