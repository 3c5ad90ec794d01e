"""What the processing calls take and give."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.schemas import Document
from app.events.catalogue import Failure
from app.jobs import models as jobs
from app.jobs.models import JobState
from app.web.fields import LINE
from app.web.pagination import Page


class ProcessRequest(BaseModel):
    """Which work to do. An empty body means the defaults."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"processor": "simulated", "params": {"seconds": 2}, "force": False}},
    )

    processor: str = Field("simulated", max_length=50)
    params: dict[str, Any] = Field({}, description="The processor's own; those left out take its defaults.")
    force: bool = Field(False, strict=True, description="Run again although there is a current result.")


class Job(BaseModel):
    """One accepted request for work on a document."""

    id: UUID
    document_id: UUID | None
    kind: str = Field(
        description="What kind of work it is: `process` runs a processor over a document.", examples=["process"]
    )
    processor: str | None = Field(examples=["simulated"])
    params: dict[str, Any] | None = Field(
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
            "params": job.args.get("params"),
            "attempt": job.tries,
            "max_attempts": job.max_tries,
            "result_url": f"/documents/{job.document_id}/results/{processor}" if succeeded else None,
        }
        return cls(**{name: getattr(job, name) for name in job.__slots__} | shown)


class JobPage(Page[Job]):
    """One page of a list of jobs."""


class JobFilters(BaseModel):
    """Query parameters of the list."""

    state: JobState | None = None
    dead: bool | None = Field(None, description="`true`: only jobs that used up their attempts.")
    document_id: UUID | None = None
    processor: str | None = Field(None, min_length=1, max_length=50, pattern=LINE)


class ProcessResponse(BaseModel):
    """The answer to a process call."""

    document: Document
    job: Job
    started: bool = Field(description="False: this very work is running or done already.")


class Result(BaseModel):
    """What a processor made of a document: the data, and what it was made by and of."""

    model_config = ConfigDict(from_attributes=True)

    document_id: UUID
    job_id: UUID
    processor: str = Field(examples=["text"])
    processor_version: str = Field(description="The version of the processor that ran.", examples=["1"])
    input_sha256: str = Field(description="SHA-256 of the file that was read, in hex.")
    params: dict[str, Any] = Field(examples=[{"max_characters": 1_000_000, "max_pages": 10_000}])
    data: dict[str, Any] = Field(examples=[{"text": "Invoice 42", "pages": 1, "characters": 10, "truncated": False}])
    created_at: datetime


class ResultList(BaseModel):
    """The last good result of each processor, the latest first."""

    items: list[Result]
