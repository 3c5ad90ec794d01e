"""SQL over results: the last good one of each processor. Every function runs inside the caller's transaction."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from app.database import Prepared, insert_or_replace, now
from app.jobs.models import Job
from app.processing.models import results
from app.processing.schemas import Result

_OF_DOCUMENT = select(results).where(results.c.document_id == bindparam("document"))
_OF_PROCESSOR = Prepared(_OF_DOCUMENT.where(results.c.processor == bindparam("name")))
_LATEST_FIRST = _OF_DOCUMENT.order_by(results.c.created_at.desc(), results.c.job_id.desc())
_LATEST = Prepared(_LATEST_FIRST.limit(1))
_ALL = Prepared(_LATEST_FIRST)


def latest(conn: Connection, document_id: UUID) -> Result | None:
    """The result that was published last, whichever processor made it."""
    row = _LATEST.one(conn, {"document": document_id})
    return Result.model_validate(row) if row else None


def of_processor(conn: Connection, document_id: UUID, processor: str) -> Result | None:
    """The last good result of one processor."""
    row = _OF_PROCESSOR.one(conn, {"document": document_id, "name": processor})
    return Result.model_validate(row) if row else None


def of_document(conn: Connection, document_id: UUID) -> list[Result]:
    """The last good result of each processor, the latest first."""
    return [Result.model_validate(row) for row in _ALL.all(conn, {"document": document_id})]


_PUBLISH = insert_or_replace(results, created_at=now())


def publish(conn: Connection, job: Job, data: dict[str, Any]) -> None:
    """Put the result of a job in the place of its processor's last one."""
    values = {
        "document_id": job.document_id,
        "processor": job.args["processor"],
        "job_id": job.id,
        "processor_version": job.args["version"],
        "params": job.args["params"],
        "input_sha256": job.args["file"]["sha256"],
        "data": data,
    }
    _PUBLISH[conn.dialect.name].count(conn, values)
