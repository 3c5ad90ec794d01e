"""How a job ends: the one place that turns an outcome into a state.

Settling is open to whoever holds (job id, fence), in this process or outside. Each function is part of one transaction.
Where the lease was lost, the fence holds: nothing changes, and a `job.fenced` event says so.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.database import after_commit
from app.events.catalogue import (
    Event,
    Failure,
    JobCancelled,
    JobFailed,
    JobFenced,
    JobLeaseLost,
    JobReleased,
    JobRetried,
    JobSucceeded,
)
from app.jobs import repository, transitions
from app.jobs.kinds import End, Failed, Kind, Outcome, Released, Retryable, Succeeded, Waiting
from app.jobs.models import Job, JobState
from app.jobs.transitions import Change
from app.telemetry import context, faults, metrics

Kinds = Mapping[str, Kind]

_LEASE_LOST = Failure(code="lease-lost", detail="The worker fell silent on the last attempt.")


def settle(conn: Connection, kind: Kind, job: Job, outcome: Outcome, *, unsure: bool = False) -> bool:
    """Write what came of an attempt. False: refused, because the lease was lost.

    `unsure`: an earlier call may have committed, though its caller got no answer. If it did, this call changes nothing
    and returns True.
    """
    match outcome:
        case Succeeded(value):
            settled = _succeed(conn, kind, job, value)
        case Failed(error):
            settled = _fail(conn, kind, job, error, dead=False)
        case Retryable(error) if job.tries >= job.max_tries:
            settled = _fail(conn, kind, job, error, dead=True)
        case Retryable(error):
            settled = _retry(conn, kind, job, error)
        case Released():
            settled = _release(conn, job)
        case Waiting(seconds):
            settled = transitions.change(conn, job, Change.waiting(seconds))
    if not settled and unsure and transitions.was_settled(conn, job):
        return True
    if not settled:
        repository.record(conn, JobFenced(fence=job.fence), job)
        after_commit(conn, metrics.finishes_fenced.inc)
    faults.hit("finish.before_commit")
    return settled


def cancel(conn: Connection, kind: Kind, job: Job, error: Failure) -> None:
    """Do what follows from a job that its owner has just cancelled, under the request that cancelled it."""
    _ended(conn, kind, job, JobCancelled(error=error), End(JobState.CANCELLED, error=error))


def requeue_expired(conn: Connection) -> list[Job]:
    """Requeue jobs whose lease has expired and that have tries left. Returns them; a batch at the most."""
    requeued = transitions.requeue_expired(conn)
    for job in requeued:
        with context.acting(request=job.request_id):
            _record_lost_lease(conn, job)
    faults.hit("rescue.midway")
    return requeued


def discard_exhausted(conn: Connection, kinds: Kinds) -> list[Job]:
    """End jobs of these kinds whose lease has expired on their last try. Returns them; a batch at the most."""
    discarded = transitions.discard_exhausted(conn, kinds, _LEASE_LOST)
    for job in discarded:
        with context.acting(request=job.request_id):
            _record_lost_lease(conn, job)
            event, end = JobFailed(dead=True, error=_LEASE_LOST), End(JobState.FAILED, error=_LEASE_LOST)
            _ended(conn, kinds[job.kind], job, event, end)
    return discarded


def _record_lost_lease(conn: Connection, job: Job) -> None:
    repository.record(conn, JobLeaseLost(attempt=job.tries, fence=job.fence), job)
    after_commit(conn, metrics.leases_lost.inc)


def _succeed(conn: Connection, kind: Kind, job: Job, value: Any) -> bool:
    if not transitions.change(conn, job, Change.succeeded()):
        return False
    _ended(conn, kind, job, JobSucceeded(attempt=job.tries, fence=job.fence), End(JobState.SUCCEEDED, value))
    return True


def _fail(conn: Connection, kind: Kind, job: Job, error: Failure, *, dead: bool) -> bool:
    if not transitions.change(conn, job, Change.failed(error, dead=dead)):
        return False
    event = JobFailed(attempt=job.tries, fence=job.fence, dead=dead, error=error)
    _ended(conn, kind, job, event, End(JobState.FAILED, error=error))
    return True


def _retry(conn: Connection, kind: Kind, job: Job, error: Failure) -> bool:
    delay = kind.backoff(job.tries)
    if not transitions.change(conn, job, Change.retry(error, delay)):
        return False
    event = JobRetried(attempt=job.tries, fence=job.fence, delay=round(delay, 2), error=error)
    repository.record(conn, event, job)
    after_commit(conn, metrics.jobs_retried.inc)
    return True


def _release(conn: Connection, job: Job) -> bool:
    if not transitions.change(conn, job, Change.released(job.error)):
        return False
    repository.record(conn, JobReleased(attempt=job.tries, fence=job.fence), job)
    return True


def _ended(conn: Connection, kind: Kind, job: Job, event: Event, end: End) -> None:
    """Record the one final event of a job, count it, and let its kind do what follows."""
    repository.record(conn, event, job)
    kind.ended(conn, job, end)
    after_commit(conn, lambda: metrics.jobs_finished.labels(end.state.lower()).inc())
