"""Requests and responses of the routes of direct uploads."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.documents.schemas import Metadata, Sha256
from app.files.models import ContentType
from app.files.names import display_name
from app.web.fields import LINE, WHOLE


def _displayable(sent: str) -> str:
    name = display_name(sent)
    if name is None:
        raise ValueError("Not usable as a filename")
    return name


class NewUpload(BaseModel):
    """The file that the client is going to send."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "filename": "report.pdf",
                "content_type": "application/pdf",
                "size": 48213,
                "sha256": "3f9b679170b66ad38bb61c6c60af72eccc93ea1e7966215452ceec06e3a1d7bc",
                "metadata": {"folder": "invoices/2026"},
            }
        },
    )

    filename: Annotated[str, Field(min_length=1, max_length=1024, pattern=LINE), AfterValidator(_displayable)]
    content_type: ContentType
    size: Annotated[int, Field(ge=1, strict=True, description="Bytes."), WHOLE]
    sha256: Sha256 | None = None
    metadata: Metadata = Metadata()


class Upload(BaseModel):
    """Where and how to send the file: exactly `size` bytes, with these headers."""

    model_config = ConfigDict(
        json_schema_serialization_defaults_required=True,
        json_schema_extra={
            "example": {
                "document_id": "01939f3e-5c00-7000-8000-000000000001",
                "object_key": "documents/01939f3e-5c00-7000-8000-000000000001",
                "upload_url": "http://localhost:8000/uploads/01939f3e-5c00-7000-8000-000000000001?expires=1795262400"
                "&signature=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "method": "PUT",
                "headers": {"Content-Type": "application/pdf"},
                "expires_at": "2026-11-21T12:00:00Z",
            }
        },
    )

    document_id: UUID
    object_key: str
    upload_url: str
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str]
    expires_at: datetime = Field(description="When the URL expires. What was sent by then can be completed afterwards.")
