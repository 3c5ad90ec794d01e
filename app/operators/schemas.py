"""What the calls of operators take and give."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.schemas import Filters, Moment, Selection, Sort
from app.jobs import models as jobs
from app.jobs.models import JobState
from app.jobs.pauses import MAX_REASON, Pause
from app.jobs.schemas import Job
from app.processing.queues import processor_of
from app.processing.schemas import JobFilters
from app.web.fields import LINE, WHOLE
from app.web.pagination import CountedPage

MAX_BULK = 1000  # jobs

ProcessorName = Annotated[str, Field(min_length=1, max_length=50, pattern=LINE)]


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


class BulkFilter(BaseModel):
    """Which jobs: those that match all that is given."""

    model_config = ConfigDict(extra="forbid")

    owner_id: UUID | None = None
    document_id: UUID | None = None
    processor: ProcessorName | None = None
    created_after: Moment | None = Field(None, description="RFC 3339, with a zone.")
    created_before: Moment | None = Field(None, description="RFC 3339, with a zone.")


class RerunFilter(BulkFilter):
    """Which jobs to run again: those that match all that is given, and whose failure is the last word on their
    document."""

    dead: bool | None = Field(None, strict=True, description="`true`: only jobs that used up their attempts.")


class CancelFilter(BulkFilter):
    """Which unfinished jobs to cancel: those that match all that is given."""

    state: JobState | None = None


class _BulkRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    confirm: Annotated[int, Field(ge=0, strict=True), WHOLE] | None = Field(
        None,
        description="How many jobs may be changed, as the call without it has told. If more match now, nothing is.",
    )
    cursor: str | None = Field(None, max_length=2048, description="`next_cursor` of the call before.")


class RerunRequest(_BulkRequest):
    """Which jobs to run again."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": {"dead": True, "processor": "text"}}})

    filter: RerunFilter


class CancelRequest(_BulkRequest):
    """Which jobs to cancel."""

    model_config = ConfigDict(json_schema_extra={"example": {"filter": {"state": "QUEUED"}, "confirm": 12}})

    filter: CancelFilter


class BulkResponse(BaseModel):
    """What became of the jobs that match."""

    matching: int = Field(description="Jobs that matched before this call changed any; with a cursor, from there on.")
    changed: int = Field(description="Jobs that were cancelled, or accepted again. 0 without `confirm`.")
    skipped: dict[str, int] = Field(
        description="How many were not, by the code of the reason; `conflict`: somebody else was faster."
    )
    next_cursor: str | None = Field(description="If there are more than one call changes: pass as `cursor`.")


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
