"""What the processing calls take and give."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field

from app.documents.schemas import Document, Failure
from app.processing.models import JobState
from app.web.pagination import Page


class Wanted(BaseModel):
    """Which work to do. An empty body means the defaults."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"processor": "simulated", "params": {"seconds": 2}, "force": False}},
    )

    processor: str = Field("simulated", max_length=50)
    params: dict[str, Any] = Field({}, description="The processor's own; those left out take its defaults.")
    force: bool = Field(False, strict=True, description="Run again although there is a current result.")


class Job(BaseModel):
    """One accepted request to process."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "01939f3e-5c00-7000-8000-000000000002",
                "document_id": "01939f3e-5c00-7000-8000-000000000001",
                "state": "SUCCEEDED",
                "attempt": 1,
                "max_attempts": 5,
                "progress": 1.0,
                "error": None,
                "dead": False,
                "created_at": "2026-11-21T12:00:00.000Z",
                "started_at": "2026-11-21T12:00:00.010Z",
                "finished_at": "2026-11-21T12:00:02.000Z",
                "result_url": "/documents/01939f3e-5c00-7000-8000-000000000001/result",
            }
        },
    )

    id: UUID
    document_id: UUID
    state: JobState
    attempt: int = Field(validation_alias="tries", description="Attempts begun.")
    max_attempts: int = Field(validation_alias="max_tries")
    progress: float = Field(description="From 0 to 1.")
    error: Failure | None = Field(description="Why it failed; while QUEUED, why the last attempt did.")
    dead: bool = Field(description="It failed because it used up its attempts.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    owner_id: UUID = Field(exclude=True)
    processor: str = Field(exclude=True)
    processor_version: str = Field(exclude=True)
    params: dict[str, Any] = Field(exclude=True)
    fence: int = Field(exclude=True)
    request_id: str | None = Field(exclude=True)

    @computed_field(description="Where the result is, once SUCCEEDED.")  # type: ignore[prop-decorator]
    @property
    def result_url(self) -> str | None:
        return f"/documents/{self.document_id}/result" if self.state is JobState.SUCCEEDED else None


class JobPage(Page[Job]):
    pass


class JobFilters(BaseModel):
    """Query parameters of the list."""

    state: JobState | None = None
    dead: bool | None = Field(None, description="`true`: only jobs that used up their attempts.")


class Processing(BaseModel):
    """The answer to a process call."""

    document: Document
    job: Job
    started: bool = Field(description="False: this very work is running or done already.")


class Result(BaseModel):
    """The current result of a document."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "document_id": "01939f3e-5c00-7000-8000-000000000001",
                "job_id": "01939f3e-5c00-7000-8000-000000000002",
                "processor": "text",
                "processor_version": "1",
                "input_sha256": "3f9b679170b66ad38bb61c6c60af72eccc93ea1e7966215452ceec06e3a1d7bc",
                "params": {"max_characters": 1000000, "max_pages": 10000},
                "data": {"text": "Invoice 42", "pages": 1, "characters": 10, "truncated": False, "metadata": {}},
                "created_at": "2026-11-21T12:00:02.000Z",
            }
        },
    )

    document_id: UUID
    job_id: UUID
    processor: str
    processor_version: str
    input_sha256: str
    params: dict[str, Any]
    data: dict[str, Any]
    created_at: datetime
