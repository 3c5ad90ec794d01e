"""What endpoints are told: the types of messages, and the body of each.

The names are part of the API: they are fewer than those of the catalogue of events, and mean the same for ever.
"""

from datetime import datetime
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.documents.lifecycle import Status
from app.events.failure import Failure
from app.files.models import ContentType
from app.jobs.models import Job, JobState
from app.web.fields import NamedValues

T = TypeVar("T")


class EventType(NamedValues):
    """What a webhook can be told of."""

    DOCUMENT_UPLOADED = "document.uploaded"
    DOCUMENT_PROCESSING = "document.processing"
    DOCUMENT_COMPLETED = "document.completed"
    DOCUMENT_FAILED = "document.failed"
    DOCUMENT_DELETED = "document.deleted"
    DOCUMENT_RESTORED = "document.restored"
    DOCUMENT_PURGED = "document.purged"
    JOB_DEAD = "job.dead"


class MessageType(NamedValues):
    """What a webhook is told of: an event, or a test."""

    DOCUMENT_UPLOADED = EventType.DOCUMENT_UPLOADED.value
    DOCUMENT_PROCESSING = EventType.DOCUMENT_PROCESSING.value
    DOCUMENT_COMPLETED = EventType.DOCUMENT_COMPLETED.value
    DOCUMENT_FAILED = EventType.DOCUMENT_FAILED.value
    DOCUMENT_DELETED = EventType.DOCUMENT_DELETED.value
    DOCUMENT_RESTORED = EventType.DOCUMENT_RESTORED.value
    DOCUMENT_PURGED = EventType.DOCUMENT_PURGED.value
    JOB_DEAD = EventType.JOB_DEAD.value
    PING = "ping"


class WebhookDocument(BaseModel):
    """The document as it was then, without what its owner may have written about it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    owner_id: UUID
    filename: str
    content_type: ContentType
    size: int
    sha256: str | None
    status: Status
    version: int = Field(description="Rises with every change: what has a lower one than you know is out of date.")
    folder: str | None
    parent_id: UUID | None
    job_id: UUID | None
    error: Failure | None
    created_at: datetime
    updated_at: datetime


class WebhookJob(BaseModel):
    """The document's latest job that was not cancelled."""

    id: UUID
    processor: str
    state: JobState
    attempt: int = Field(description="Attempts begun.")
    error: Failure | None
    dead: bool = Field(description="It failed because it used up its attempts.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """The job, without its params, which may be long."""
        shown = {"attempt": job.tries, "processor": job.processor}
        return cls(**{name: getattr(job, name) for name in cls.model_fields.keys() - shown} | shown)


class DocumentData(BaseModel):
    """A document, and its job."""

    document: WebhookDocument
    job: WebhookJob | None = Field(description="null: it was not processed yet.")
    result_url: str | None = Field(description="Where the processor's result is, once the job SUCCEEDED.")


class DeletedDocument(BaseModel):
    """What is left of a document."""

    id: UUID
    version: int = Field(description="The one that it has since then.")


class DeletedData(BaseModel):
    """The document that was deleted."""

    document: DeletedDocument


class PingData(BaseModel):
    """The webhook that is tested."""

    webhook_id: UUID


class Message(BaseModel, Generic[T]):
    """The body of a request to an endpoint."""

    type: str
    timestamp: datetime = Field(description="When it happened.")
    data: T


class DocumentMessage(Message[DocumentData]):
    """Something happened to a document."""


class DeletedMessage(Message[DeletedData]):
    """A document was moved to the trash, or is gone for good."""


class PingMessage(Message[PingData]):
    """A test, which the webhook's owner asked for."""


MESSAGES: dict[MessageType, type[Message[Any]]] = {
    **dict.fromkeys(MessageType, DocumentMessage),
    MessageType.DOCUMENT_DELETED: DeletedMessage,
    MessageType.DOCUMENT_PURGED: DeletedMessage,
    MessageType.PING: PingMessage,
}
"""The model of the body, by the type."""
