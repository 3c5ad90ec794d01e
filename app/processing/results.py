"""SQL over results, of which a document has at most one. Runs inside the caller's transaction."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from app.database import insert_or_replace, now
from app.documents.models import documents
from app.processing.models import jobs, results
from app.processing.schemas import Job, Result


def current(conn: Connection, document_id: UUID) -> Result | None:
    """The document's result."""
    query = (
        select(
            results,
            jobs.c.processor,
            jobs.c.processor_version,
            jobs.c.params,
            documents.c.sha256.label("input_sha256"),
        )
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(documents, documents.c.id == results.c.document_id)
        .where(results.c.document_id == document_id)
    )
    row = conn.execute(query).one_or_none()
    return Result.model_validate(row) if row else None


_PUBLISH = insert_or_replace(results, created_at=now())


def publish(conn: Connection, job: Job, data: dict[str, Any]) -> None:
    """Make this the document's one current result."""
    _PUBLISH[conn.dialect.name].count(conn, {"document_id": job.document_id, "job_id": job.id, "data": data})
