"""What a claim allows, by the database's clock and in the transaction of what is done in its name."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from app.auth import credentials
from app.auth.principal import Scope
from app.database import Prepared, now
from app.errors import InvalidJobToken, LeaseLost
from app.jobs import transitions
from app.jobs.models import HELD, Job, JobState, jobs
from app.remote.tokens import Claim

_JOB = Prepared(select(jobs, now().label("at")).where(jobs.c.id == bindparam("job")))


class Found(NamedTuple):
    """The job of a claim as it is `at` a moment of the database's clock, whoever holds it."""

    job: Job
    at: datetime


def of_claim(conn: Connection, claim: Claim) -> Found:
    """The job, with the fence of the claim, so that whatever is written of it is fenced. Raises LeaseLost if another
    claim came after this one, or when this one has expired; InvalidJobToken once the API key, or the session, that it
    was made with is not good any more."""
    row = _JOB.one(conn, {"job": claim.job_id})
    if row is None or row["fence"] != claim.fence or row["at"] >= claim.expires_at:
        raise LeaseLost
    _require_credential(conn, claim)
    return Found(Job.of(row), row["at"])


def held(conn: Connection, claim: Claim) -> Found:
    """As `of_claim`, if the job is still the claim's. Raises LeaseLost."""
    found = of_claim(conn, claim)
    if found.job.state not in HELD:
        raise LeaseLost
    return found


def renew(conn: Connection, claim: Claim, progress: float) -> tuple[Job, float]:
    """Renew the lease, up to the deadline. Returns the job, and the seconds for which it is held now; 0: its owner has
    cancelled it. Raises LeaseLost."""
    job, at = of_claim(conn, claim)
    if job.state is JobState.CANCELLED:
        return job, 0.0
    lease = min(claim.lease, (claim.deadline - at).total_seconds())
    if lease <= 0 or not transitions.heartbeat(conn, job, lease, max(progress, job.progress)):
        raise LeaseLost
    return job, lease


def require(conn: Connection, claim: Claim) -> None:
    """Hold on to the job until the transaction ends. Raises LeaseLost."""
    job, _ = held(conn, claim)
    if not transitions.note_progress(conn, job, job.progress):
        raise LeaseLost


def claimed(conn: Connection, claim: Claim, timeout: float) -> tuple[Job, float]:
    """The job as the claim's, whoever holds it: to settle that is fenced. Also the seconds since the claim, for an
    attempt that may take `timeout` seconds. Raises LeaseLost if there is no such job, or the claim has expired, and
    InvalidJobToken as `of_claim` does."""
    row = _JOB.one(conn, {"job": claim.job_id})
    if row is None or row["at"] >= claim.expires_at:
        raise LeaseLost
    _require_credential(conn, claim)
    seconds = timeout - (claim.deadline - row["at"]).total_seconds()
    return replace(Job.of(row), fence=claim.fence), max(0.0, seconds)


def settled_before(conn: Connection, claim: Claim) -> JobState | None:
    """The state of the job if what came of this very claim was written before; else None."""
    row = _JOB.one(conn, {"job": claim.job_id})
    if row is None:
        return None
    job = Job.of(row)
    return job.state if transitions.was_settled(conn, replace(job, fence=claim.fence)) else None


def _require_credential(conn: Connection, claim: Claim) -> None:
    if not credentials.may(conn, claim.account_id, claim.credential_id, Scope.WORKER):
        raise InvalidJobToken
