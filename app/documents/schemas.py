"""Requests and responses of the routes of documents."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from app.documents.lifecycle import Status
from app.events.failure import Failure
from app.files.models import ContentType
from app.jobs.schemas import Job
from app.web.fields import COMPOSED, LINE, PROSE, WHOLE, NamedValues
from app.web.pagination import CountedPage

_LONGEST = 100 * 366 * 86400  # seconds

Tag = Annotated[str, Field(min_length=1, max_length=50, pattern=LINE), COMPOSED]
Folder = Annotated[str, Field(min_length=1, max_length=255, pattern=LINE), COMPOSED]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)


def _rfc3339(value: object) -> object:
    """Refuse what is not RFC 3339: Pydantic also accepts numbers, as Unix times."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("not a date and time as 2026-01-31T12:00:00Z (RFC 3339); in a URL, + is written %2B")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]


def _distinct(tags: list[str] | None) -> list[str]:
    return list(dict.fromkeys(tags or []))


class StatedMetadata(BaseModel):
    """What a user states about a document."""

    model_config = ConfigDict(extra="forbid")

    description: Annotated[str, Field(max_length=2000, pattern=PROSE), COMPOSED] | None = None
    folder: Folder | None = None
    tags: Annotated[list[Tag] | None, Field(max_length=50), AfterValidator(_distinct)] = []


StageName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,50}\??$")]


def _each_once(stages: list[str]) -> list[str]:
    if len({each.removesuffix("?") for each in stages}) < len(stages):
        raise ValueError("Each stage can be there once")
    return stages


class ProcessorChoice(BaseModel):
    """A processor, and how it is to do its work."""

    model_config = ConfigDict(extra="forbid")

    processor: str = Field("", min_length=1, max_length=50, description="Left out: the default one.")
    pipeline: Annotated[list[StageName], AfterValidator(_each_once)] | None = Field(
        None,
        min_length=1,
        max_length=10,
        description="In the place of a processor, several: each has the results of those before it. One with a `?` "
        "runs only if the document needs it.",
        examples=[["text", "language", "keywords"]],
        exclude_if=lambda stages: stages is None,  # what is asked for without is the same as ever
    )
    params: dict[str, Any] = Field(
        {},
        description="The processor's own, or those of each stage by its name; those left out take its defaults.",
    )

    @model_validator(mode="after")
    def _has_one_of_both(self) -> Self:
        if self.pipeline and self.processor:
            raise ValueError("Either processor or pipeline can be asked for")
        return self


class Metadata(StatedMetadata):
    """What a user states about a document that is sent."""

    expires_in: Annotated[int, Field(ge=1, le=_LONGEST, strict=True), WHOLE] | None = Field(
        None,
        description="Seconds after which it is moved to the trash. Left out: as the service is set.",
        exclude_if=lambda seconds: seconds is None,  # what is asked for without is the same as ever
    )


class UploadMetadata(Metadata):
    """What a user states about a document, and what is to be done with it at once."""

    process: ProcessorChoice | None = Field(
        None, description="Process the document as soon as it is stored: both are accepted, or neither is."
    )


FileBytes = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary", "description": "A PDF or DOCX."})]


class UploadForm(BaseModel):
    """A file, and what its user states about it."""

    model_config = ConfigDict(extra="forbid")

    file: FileBytes
    metadata: UploadMetadata = Field(UploadMetadata(), examples=[{}])
    process: str = Field(
        "",
        min_length=1,
        max_length=50,
        description="A processor, or `true` for the default one: short for `process` in the metadata, as which errors "
        "name it. `false` is as if it were left out.",
        examples=["split"],
    )
    process_params: dict[str, Any] = Field({}, description="Its params, as in `process` in the metadata.")


class MetadataChanges(StatedMetadata):
    """A merge patch (RFC 7396): a field that is left out stays as it is; null clears it."""

    model_config = ConfigDict(json_schema_extra={"example": {"folder": "invoices/2026"}})

    expires_at: Moment | None = Field(None, description="When it is moved to the trash. RFC 3339, with a zone.")


class Document(BaseModel):
    """A document as its owner sees it."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "01939f3e-5c00-7000-8000-000000000001",
                "owner_id": "01939f3e-5c00-7000-8000-000000000009",
                "filename": "report.pdf",
                "content_type": "application/pdf",
                "size": 48213,
                "sha256": "3f9b679170b66ad38bb61c6c60af72eccc93ea1e7966215452ceec06e3a1d7bc",
                "status": "COMPLETED",
                "version": 3,
                "description": "Q3 invoice",
                "folder": "invoices/2026",
                "tags": ["acme", "paid"],
                "parent_id": None,
                "job_id": "01939f3e-5c00-7000-8000-000000000002",
                "error": None,
                "file_number": 1,
                "created_at": "2026-11-21T12:00:00.000Z",
                "updated_at": "2026-11-21T12:00:02.000Z",
                "deleted_at": None,
                "expires_at": None,
                "hold": None,
            }
        },
    )

    id: UUID
    owner_id: UUID
    filename: str
    content_type: ContentType
    size: int = Field(description="Bytes. While INITIATED: as announced.")
    sha256: str | None = Field(description="Of the stored bytes, in hex. While INITIATED: as announced, or null.")
    status: Status
    version: int = Field(description="Rises with every change; `ETag` holds it.")
    description: str | None
    folder: str | None
    tags: list[str]
    parent_id: UUID | None = Field(
        description="The document that a processor has made it of, which may be deleted by now."
    )
    job_id: UUID | None = Field(description="The latest job that read its file and was not cancelled, or null.")
    error: Failure | None = Field(description="With FAILED: why. With INITIATED: why the file was rejected.")
    file_number: int = Field(description="Which of its files it has now: rises when the file is replaced.")
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = Field(description="Since when it is in the trash; null: it is not.")
    expires_at: datetime | None = Field(description="When it is moved to the trash.")
    hold: str | None = Field(description="Why an operator has forbidden to remove it; null: it may be removed.")

    @property
    def etag(self) -> str:
        """The value of the `ETag` header, with its quotes."""
        return f'"{self.version}"'


class UploadedDocument(Document):
    """A document that was uploaded, with its job if `process` asked for one."""

    job: Job | None = Field(None, description="Only there if the metadata had `process`.")


class Sort(NamedValues):
    """What the list is ordered by; `-`: descending."""

    CREATED_AT = "created_at"
    CREATED_AT_DESCENDING = "-created_at"
    FILENAME = "filename"
    FILENAME_DESCENDING = "-filename"
    SIZE = "size"
    SIZE_DESCENDING = "-size"


class DocumentPage(CountedPage[Document]):
    """A page of the list of documents."""


class Selection(BaseModel):
    """What selects documents: all that is given must match."""

    status: Status | None = None
    content_type: ContentType | None = None
    tag: Tag | None = Field(None, description="One of the document's tags.")
    folder: Folder | None = Field(None, description="The document's folder, whole.")
    q: Annotated[str, Field(min_length=1, max_length=200, pattern=PROSE), COMPOSED] | None = Field(
        None, description="Part of the filename or the description, in any case."
    )
    sha256: Sha256 | None = Field(None, description="Of the stored file.")
    parent_id: UUID | None = Field(None, description="What it was made of.")
    created_after: Moment | None = Field(None, description="RFC 3339, with a zone.")
    created_before: Moment | None = Field(None, description="RFC 3339, with a zone.")


class Filters(Selection):
    """Query parameters of the list."""

    trashed: bool = Field(False, description="`true`: those in the trash, instead of the others.")
    held: bool = Field(False, description="`true`: only those on hold.")
    sort: Sort = Sort.CREATED_AT_DESCENDING

    @property
    def descending(self) -> bool:
        return self.sort.startswith("-")

    @property
    def sort_column(self) -> str:
        return self.sort.removeprefix("-")
