"""SQL over results, of which a document has at most one. Runs inside the caller's transaction."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from app.database import insert_unless, now
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


def publish(conn: Connection, job: Job, data: dict[str, Any]) -> None:
    """Make this the document's one current result."""
    row = insert_unless(conn, results).values(document_id=job.document_id, job_id=job.id, data=data, created_at=now())
    values = {name: row.excluded[name] for name in ("job_id", "data", "created_at")}
    conn.execute(row.on_conflict_do_update(index_elements=["document_id"], set_=values))
