"""What happens to documents and their files."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType

from app.events.catalogue.base import Event, TimelineEvent
from app.events.failure import Failure

RemovalReason = TypeAliasType("RemovalReason", Literal["deleted", "expired", "too-many"])


class DocumentInitiated(TimelineEvent):
    """A direct upload was announced."""

    name = "document.initiated"
    size: int
    sha256: str | None
    content_type: str


class DocumentUploaded(TimelineEvent):
    """The file is stored and verified."""

    name = "document.uploaded"
    size: int
    sha256: str
    content_type: str


class DocumentChildrenPublished(TimelineEvent):
    """Documents were made of this one, and published together."""

    name = "document.children_published"
    processor: str
    children: Annotated[int, Field(description="How many.")]


class DocumentStatusChanged(TimelineEvent):
    """The document went from one status to another."""

    name = "document.status_changed"
    old: str
    new: str


class DocumentUploadRejected(TimelineEvent):
    """The file that was sent is not the one announced, or not acceptable. It was removed."""

    name = "document.upload_rejected"
    error: Failure


class DocumentEdited(TimelineEvent):
    """Metadata was changed: these fields of it."""

    name = "document.edited"
    fields: list[str]


class DocumentContentRead(TimelineEvent):
    """The document's file was sent, or a part of it. Recorded only if AUDIT_READS says so."""

    name = "document.content_read"
    start: Annotated[int, Field(description="The first byte that was sent.")]
    length: int
    number: Annotated[int | SkipJsonSchema[None], Field(description="Which of its files, if that was said.")] = None
    page: Annotated[int | SkipJsonSchema[None], Field(description="The bytes are of a picture of this page.")] = None


class DocumentDeleted(TimelineEvent):
    """The document was moved to the trash, or deleted for good: `document.purged` tells them apart.

    `version` is the one that it has since then; it is missing if the operator erased the account.
    """

    name = "document.deleted"
    version: int | SkipJsonSchema[None] = None
    reason: Annotated[Literal["expired"] | SkipJsonSchema[None], Field(description="Missing: somebody did it.")] = None


class DocumentRestored(TimelineEvent):
    """The document was taken out of the trash."""

    name = "document.restored"
    version: int


class DocumentPurged(Event):
    """The document is gone for good, with its jobs, results and previous files. What was stored is removed soon."""

    name = "document.purged"
    version: int | SkipJsonSchema[None] = None


class DocumentHeld(TimelineEvent):
    """An operator has forbidden to remove the document."""

    name = "document.held"
    version: int
    reason: str


class DocumentReleased(TimelineEvent):
    """The document may be removed again."""

    name = "document.released"
    version: int


class DocumentFileReplaced(TimelineEvent):
    """The document has another file from now on. `restored`: it is a copy of the previous one of this number."""

    name = "document.file_replaced"
    number: int
    size: int
    sha256: str
    content_type: str
    restored: int | SkipJsonSchema[None] = None


class DocumentFileEdited(TimelineEvent):
    """What is stated about one of the document's files was changed: these fields of it."""

    name = "document.file_edited"
    number: int
    fields: list[str]


class DocumentFileRemoved(TimelineEvent):
    """A previous file of the document was deleted, with its results: by somebody, for its age, or for their number."""

    name = "document.file_removed"
    number: int
    reason: RemovalReason


class DocumentResultsExpired(TimelineEvent):
    """Results of the document were deleted for their age."""

    name = "document.results_expired"
    processors: list[str]


class DocumentUploadExpired(Event):
    """The document was deleted, because its direct upload was not completed in time."""

    name = "document.upload_expired"
