"""How a job ends: the one place that turns an outcome into a state.

Settling is open to whoever holds (job id, fence), in this process or outside. Each function is part of one transaction.
Where the lease was lost, the fence holds: nothing changes, and a `job.fenced` event says so.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from app.database import after_commit
from app.jobs import repository, transitions
from app.jobs.kinds import End, Failed, Kind, Outcome, Released, Retryable, Succeeded, Waiting
from app.jobs.models import Failure, Job, JobState
from app.jobs.transitions import Change
from app.telemetry import context, faults, metrics

Kinds = Mapping[str, Kind]

_LEASE_LOST = Failure(code="lease-lost", detail="The worker fell silent on the last attempt.")


def settle(conn: Connection, kind: Kind, job: Job, outcome: Outcome, actor: str, *, unsure: bool = False) -> bool:
    """Write what came of an attempt. False: refused, because the lease was lost.

    `unsure`: an earlier call may have committed, though its caller got no answer. If it did, this call changes nothing
    and returns True.
    """
    match outcome:
        case Succeeded(value):
            settled = _succeed(conn, kind, job, value, actor)
        case Failed(error):
            settled = _fail(conn, kind, job, error, actor, dead=False)
        case Retryable(error) if job.tries >= job.max_tries:
            settled = _fail(conn, kind, job, error, actor, dead=True)
        case Retryable(error):
            settled = _retry(conn, kind, job, error, actor)
        case Released():
            settled = _release(conn, job, actor)
        case Waiting(seconds):
            settled = transitions.change(conn, job, Change.waiting(seconds))
    if not settled and unsure and transitions.was_settled(conn, job):
        return True
    if not settled:
        repository.record(conn, "job.fenced", job, actor, fence=job.fence)
        after_commit(conn, metrics.finishes_fenced.inc)
    faults.hit("finish.before_commit")
    return settled


def cancel(conn: Connection, kind: Kind, job: Job, actor: str) -> None:
    """Do what follows from a job that its owner has just cancelled, under the request that cancelled it."""
    _ended(conn, kind, job, End(JobState.CANCELLED, actor, context.request_id.get(), error=job.error))


def requeue_expired(conn: Connection, actor: str) -> list[Job]:
    """Requeue jobs whose lease has expired and that have tries left. Returns them; a batch at the most."""
    requeued = transitions.requeue_expired(conn)
    for job in requeued:
        _record_lost_lease(conn, job, actor)
    faults.hit("rescue.midway")
    return requeued


def discard_exhausted(conn: Connection, kinds: Kinds, actor: str) -> list[Job]:
    """End jobs of these kinds whose lease has expired on their last try. Returns them; a batch at the most."""
    discarded = transitions.discard_exhausted(conn, kinds, _LEASE_LOST)
    for job in discarded:
        _record_lost_lease(conn, job, actor)
        end = End(JobState.FAILED, actor, job.request_id, error=_LEASE_LOST)
        _ended(conn, kinds[job.kind], job, end, dead=True)
    return discarded


def _record_lost_lease(conn: Connection, job: Job, actor: str) -> None:
    repository.record(conn, "job.lease_lost", job, actor, attempt=job.tries, fence=job.fence)
    after_commit(conn, metrics.leases_lost.inc)


def _succeed(conn: Connection, kind: Kind, job: Job, value: Any, actor: str) -> bool:
    if not transitions.change(conn, job, Change.succeeded()):
        return False
    end = End(JobState.SUCCEEDED, actor, job.request_id, value)
    _ended(conn, kind, job, end, attempt=job.tries, fence=job.fence)
    return True


def _fail(conn: Connection, kind: Kind, job: Job, error: Failure, actor: str, *, dead: bool) -> bool:
    if not transitions.change(conn, job, Change.failed(error, dead=dead)):
        return False
    end = End(JobState.FAILED, actor, job.request_id, error=error)
    _ended(conn, kind, job, end, attempt=job.tries, fence=job.fence, dead=dead)
    return True


def _retry(conn: Connection, kind: Kind, job: Job, error: Failure, actor: str) -> bool:
    delay = kind.backoff(job.tries)
    if not transitions.change(conn, job, Change.retry(error, delay)):
        return False
    repository.record(
        conn,
        "job.retried",
        job,
        actor,
        attempt=job.tries,
        fence=job.fence,
        delay=round(delay, 2),
        error=error.model_dump(),
    )
    after_commit(conn, metrics.jobs_retried.inc)
    return True


def _release(conn: Connection, job: Job, actor: str) -> bool:
    if not transitions.change(conn, job, Change.released(job.error)):
        return False
    repository.record(conn, "job.released", job, actor, attempt=job.tries, fence=job.fence)
    return True


def _ended(conn: Connection, kind: Kind, job: Job, end: End, **data: Any) -> None:
    """Record the one final event of a job, count it, and let its kind do what follows."""
    if end.error is not None:
        data["error"] = end.error.model_dump()
    outcome = end.state.lower()
    repository.record(conn, f"job.{outcome}", job, end.actor, request_id=end.request_id, **data)
    kind.ended(conn, job, end)
    after_commit(conn, lambda: metrics.jobs_finished.labels(outcome).inc())
