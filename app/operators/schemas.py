"""What the calls of operators take and give."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.schemas import Filters, Moment, Selection, Sort
from app.jobs import models as jobs
from app.jobs.pauses import MAX_REASON, Pause
from app.jobs.schemas import Job
from app.processing.queues import processor_of
from app.processing.schemas import JobFilters
from app.web.fields import LINE
from app.web.pagination import CountedPage


class DocumentsFilters(Selection):
    """Query parameters of the list of all documents."""

    owner_id: UUID | None = Field(None, description="Only this account's.")
    trashed: bool | None = Field(None, description="`true`: those in the trash, instead of the others.")
    held: bool | None = Field(None, description="`true`: only those on hold.")

    @property
    def newest_first(self) -> Filters:
        """The same as an owner would ask."""
        given = {name: value for name, value in self if name != "owner_id"}
        return Filters.model_construct(**given, sort=Sort.CREATED_AT_DESCENDING)


class JobsFilters(JobFilters):
    """Query parameters of the list of all jobs."""

    owner_id: UUID | None = Field(None, description="Only this account's.")
    created_after: Moment | None = Field(None, description="RFC 3339, with a zone.")
    created_before: Moment | None = Field(None, description="RFC 3339, with a zone.")


class AnyJob(Job):
    """A job of any account."""

    owner_id: UUID
    locked_by: str | None = Field(description="The worker that is at it.", examples=["worker:host:4711"])

    @classmethod
    def each(cls, found: list[jobs.Job]) -> list[Self]:
        """Those of the list."""
        return [cls.of(job) for job in found]


class AnyJobPage(CountedPage[AnyJob]):
    """A page of the list of all jobs."""


class PauseRequest(BaseModel):
    """Why a processor is paused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "It fills the disk."}})

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON, pattern=LINE)] | None = None


class HoldRequest(BaseModel):
    """Why the document must not be removed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "Case 2026/117"}})

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON, pattern=LINE, description="The owner sees it.")]


class PausedProcessor(BaseModel):
    """A processor whose jobs wait, and why."""

    processor: str = Field(examples=["text"])
    reason: str | None
    actor: str = Field(description="Who paused it.")
    since: datetime

    @classmethod
    def of(cls, pause: Pause) -> Self:
        """The processor that a pause is about."""
        return cls(**pause._asdict() | {"processor": processor_of(pause.queues)})
