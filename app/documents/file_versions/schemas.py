"""Requests and responses of the routes of a document's files."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.schemas import FileBytes
from app.files.models import ContentType
from app.web.fields import COMPOSED, LINE
from app.web.pagination import Page

Label = Annotated[str, Field(min_length=1, max_length=100, pattern=LINE), COMPOSED]


class DocumentFile(BaseModel):
    """A file that the document has, or had before."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="Counts from 1. A number is never used again.")
    filename: str
    content_type: ContentType
    size: int = Field(description="Bytes. While the document is INITIATED: as announced.")
    sha256: str | None = Field(description="In hex. While the document is INITIATED: as announced, or null.")
    label: str | None
    keep: bool = Field(description="It is not removed for its age, or because there are many.")
    current: bool = Field(description="It is the one that the document has now.")
    stored_at: datetime
    stored_by: str | None = Field(
        description="Who replaced the one before by it; null: it came with the document.",
        examples=["user:01939f3e-5c00-7000-8000-000000000009"],
    )
    replaced_at: datetime | None = Field(description="When it was replaced; null: it was not.")


class DocumentFilePage(Page[DocumentFile]):
    """A page of the list of a document's files, the newest first."""


class FileChanges(BaseModel):
    """A merge patch (RFC 7396): a field that is left out stays as it is; null clears it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"label": "signed", "keep": True}})

    label: Label | None = None
    keep: bool | None = Field(None, strict=True)


class FileForm(BaseModel):
    """A file in a form."""

    file: FileBytes


class SentFile(BaseModel):
    """A file that came by a direct upload: that of another document, which becomes this one's and goes away."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"document_id": "01939f3e-5c00-7000-8000-000000000003"}}
    )

    document_id: UUID
