"""Jobs as their owners see them."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from app.events.failure import Failure
from app.jobs import models as jobs
from app.jobs.models import JobState
from app.telemetry import context


def result_url(document_id: UUID | None, processor: str) -> str:
    """Where clients find a processor's last good result."""
    return f"{context.prefix.get()}/documents/{document_id}/results/{processor}"


JobParams = TypeAliasType("JobParams", dict[str, Any])


class Job(BaseModel):
    """One accepted request for work on a document."""

    id: UUID
    document_id: UUID | None
    file_number: int | None = Field(
        description="Which of the document's files it reads; null: that was removed, and is not known any more."
    )
    kind: str = Field(
        description="What kind of work it is: `process` runs a processor over a document.", examples=["process"]
    )
    processor: str | None = Field(examples=["simulated"])
    params: JobParams | None = Field(
        description="The processor's, complete with defaults.", examples=[{"seconds": 2.0, "fail": None, "flaky": 0}]
    )
    state: JobState
    attempt: int = Field(description="Attempts begun.")
    max_attempts: int
    progress: float = Field(description="From 0 to 1.")
    error: Failure | None = Field(description="Why it failed; while QUEUED, why the last attempt did.")
    dead: bool = Field(description="It failed because it used up its attempts.")
    run_at: datetime = Field(description="It does not start before.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result_url: str | None = Field(description="Where the processor's last good result is, once SUCCEEDED.")

    @classmethod
    def of(cls, job: jobs.Job) -> Self:
        """The job as its owner sees it."""
        processor = job.args.get("processor")
        succeeded = job.state is JobState.SUCCEEDED and processor
        shown = {
            "processor": processor,
            "file_number": job.args.get("file_number"),
            "params": job.args.get("params"),
            "attempt": job.tries,
            "max_attempts": job.max_tries,
            "result_url": result_url(job.document_id, str(processor)) if succeeded else None,
        }
        return cls(**{name: getattr(job, name) for name in job.__slots__} | shown)
