"""How a job ends: the one place that turns an outcome into states of job and document.

Each function is part of one transaction. Where the job is not the runner's any more, the fence holds: nothing
changes, and a `job.fenced` event says so.
"""

from dataclasses import dataclass
from random import uniform
from typing import Any

from sqlalchemy import Connection

from app import events
from app.database import after_commit
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.documents.schemas import Failure
from app.processing import repository, results
from app.processing.models import JobState
from app.processing.schemas import Job
from app.telemetry import faults, metrics

MAX_BACKOFF = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Succeeded:
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """For good, whatever tries are left."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Faltered:
    """This attempt failed; another may not."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Released:
    """Given back unfinished by a shutdown: the try does not count."""


Outcome = Succeeded | Failed | Faltered | Released


def settle(conn: Connection, job: Job, outcome: Outcome, worker: str, *, unsure: bool = False) -> bool:
    """Write what came of an attempt. False: refused, because the lease was lost.

    Who is `unsure` whether this was committed before may repeat it: if it was, it stands, and nothing more is told.
    """
    actor = f"worker:{worker}"
    match outcome:
        case Succeeded(data):
            settled = _succeed(conn, job, data, actor)
        case Failed(error):
            settled = _fail(conn, job, error, actor, dead=False)
        case Faltered(error) if job.attempt >= job.max_attempts:
            settled = _fail(conn, job, error, actor, dead=True)
        case Faltered(error):
            settled = _retry(conn, job, error, actor)
        case Released():
            settled = _release(conn, job, actor)
    if not settled and unsure and repository.was_settled(conn, job):
        return True
    if not settled:
        repository.tell(conn, "job.fenced", job, actor, fence=job.fence)
        after_commit(conn, metrics.finishes_fenced.inc)
    faults.hit("finish.before_commit")
    return settled


def cancel(conn: Connection, job: Job) -> None:
    """What follows from a job that its owner has just cancelled."""
    assert job.error is not None
    job = job.model_copy(update={"request_id": events.current_request_id()})  # not the request that began the job
    _end(conn, job, "job.cancelled", actor=f"user:{job.owner_id}", status=Status.FAILED, error=job.error)


def take_back_lost(conn: Connection, worker: str) -> list[Job]:
    """Requeue the jobs of silent workers, or end those that have no try left. Returns both."""
    actor = f"worker:{worker}"
    requeued = repository.requeue_lost(conn)
    error = Failure(code="lease-lost", detail="The worker fell silent on the last attempt.")
    faults.hit("sweeper.midway")
    buried = repository.bury_lost(conn, error)
    for job in [*requeued, *buried]:
        repository.tell(conn, "job.lease_lost", job, actor, attempt=job.attempt, fence=job.fence)
        after_commit(conn, metrics.leases_lost.inc)
    for job in buried:
        _end(conn, job, "job.failed", actor=actor, status=Status.FAILED, error=error, dead=True)
    return [*requeued, *buried]


def _succeed(conn: Connection, job: Job, data: dict[str, Any], actor: str) -> bool:
    if not repository.finish(conn, job, JobState.SUCCEEDED):
        return False
    results.publish(conn, job, data)
    _end(
        conn,
        job,
        "job.succeeded",
        actor=actor,
        status=Status.COMPLETED,
        error=None,
        attempt=job.attempt,
        fence=job.fence,
    )
    return True


def _fail(conn: Connection, job: Job, error: Failure, actor: str, *, dead: bool) -> bool:
    if not repository.finish(conn, job, JobState.FAILED, error=error, dead=dead):
        return False
    _end(
        conn,
        job,
        "job.failed",
        actor=actor,
        status=Status.FAILED,
        error=error,
        attempt=job.attempt,
        fence=job.fence,
        dead=dead,
    )
    return True


def _retry(conn: Connection, job: Job, error: Failure, actor: str) -> bool:
    delay = min(2.0 ** min(job.attempt, 9), MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret
    if not repository.requeue(conn, job, delay=delay, error=error):
        return False
    told = {"attempt": job.attempt, "fence": job.fence, "delay": round(delay, 2), "error": error.model_dump()}
    repository.tell(conn, "job.retried", job, actor, **told)
    after_commit(conn, metrics.jobs_retried.inc)
    return True


def _release(conn: Connection, job: Job, actor: str) -> bool:
    if not repository.requeue(conn, job, delay=0, refund=1, error=job.error):
        return False
    repository.tell(conn, "job.released", job, actor, attempt=job.attempt, fence=job.fence)
    return True


def _end(
    conn: Connection, job: Job, event: str, *, actor: str, status: Status, error: Failure | None, **data: Any
) -> None:
    """The document's side of a job that has ended, its one final event, and its count."""
    if error is not None:
        data["error"] = error.model_dump()
    repository.tell(conn, event, job, actor, **data)
    moved = documents.move(
        conn,
        job.document_id,
        Status.PROCESSING,
        status,
        actor=actor,
        job_id=job.id,
        error=error,
        request_id=job.request_id,
    )
    if moved is None:
        raise AssertionError("a live job's document is PROCESSING")
    outcome = event.removeprefix("job.")
    after_commit(conn, lambda: metrics.jobs_finished.labels(outcome).inc())
