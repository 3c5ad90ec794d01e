"""Which jobs to run again or to cancel, and what became of them."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.schemas import Moment
from app.jobs.models import JobState
from app.web.fields import LINE, WHOLE

MAX_BULK = 1000  # jobs

ProcessorName = Annotated[str, Field(min_length=1, max_length=50, pattern=LINE)]


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
