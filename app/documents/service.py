"""What users do with documents: upload, list, edit, download."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app import events, idempotency
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents import activity, listing, repository
from app.documents.file_versions import sql as file_versions
from app.documents.intake import Intake, Pending
from app.documents.lifecycle import Status
from app.documents.schemas import (
    Document,
    DocumentPage,
    Filters,
    ProcessorChoice,
    Sort,
    UploadedDocument,
    UploadMetadata,
)
from app.documents.upload_form import metadata_of
from app.errors import NotFound, PreconditionFailed, UploadIncomplete, ValidationFailed
from app.events import TimelineItem, TimelinePage
from app.events.catalogue.documents import DocumentContentRead
from app.files.downloads import Downloads
from app.files.models import File
from app.files.multipart import OVERHEAD
from app.files.receive import Receiver, Sent
from app.files.stored import StoredFiles
from app.idempotency import StoredResponse
from app.quotas import Quotas
from app.settings import Settings
from app.telemetry import faults
from app.web import pagination
from app.web.conditional import Span

LARGE = 1024**2  # bytes of a body that is not read if its file is too large for the quota


class UploadJob(NamedTuple):
    """A job that an upload asks for: `accept` it in the unit that adds the document, then `wake` a worker for it."""

    processor: str
    accept: Callable[[Connection, Document], UploadedDocument]
    wake: Callable[[], Awaitable[None]]


class _Received(NamedTuple):
    """A file that is stored, with what is stated about it, and the job that it is to get."""

    file: File
    filename: str
    metadata: UploadMetadata
    job: UploadJob | None


class DocumentService:
    """Receives, finds, changes and sends the documents of users.

    Each method acts for one owner; another owner's document raises NotFound.
    """

    def __init__(
        self,
        db: Database,
        stored: StoredFiles,
        receiver: Receiver,
        intake: Intake,
        downloads: Downloads,
        *,
        quotas: Quotas,
        settings: Settings,
        job_for: Callable[[Principal, ProcessorChoice], UploadJob],
    ) -> None:
        """`job_for` checks what an upload asks to have done with its document."""
        self._db = db
        self._stored = stored
        self._receiver = receiver
        self._intake = intake
        self._quotas = quotas
        self._downloads = downloads
        self._job_for = job_for
        self._settings = settings
        self.max_upload_bytes = settings.max_upload_bytes

    async def upload(
        self, principal: Principal, form: Sent, body: AsyncIterator[bytes], key: str | None, declared: int
    ) -> tuple[StoredResponse, UploadJob | None]:
        """Receive one document: store its file, then commit its row, and with it the job that its metadata may ask for.

        `key` is the Idempotency-Key, if there is one; `declared` is the Content-Length, or 0. Returns the answer, and
        the job if this call has created one.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument and its subclasses, UnsafeArchive,
        ValidationFailed, RequestTimeout, RequestInProgress, IdempotencyKeyReused, StorageQuotaExceeded,
        DocumentQuotaExceeded, TooBusy, StorageFull, Unavailable; and for `process` InsufficientScope, UnknownProcessor,
        UnsupportedContentType, TooManyJobs.
        """
        async with self._intake.in_progress.hold(principal.owner_id, key):
            await self._refuse_beyond_quota(principal.owner_id, declared - OVERHEAD, key)
            received = await self._receive(principal, form, body)
            return await self._record(principal, received, key)

    async def take_in(
        self,
        principal: Principal,
        sent: Sent,
        stream: AsyncIterator[bytes],
        keyed_by: Callable[[str], str],
        size: int,
    ) -> tuple[StoredResponse, UploadJob | None]:
        """Receive a file that may have come before: the account gets no second document of its name, folder and bytes.

        `keyed_by` makes the Idempotency-Key of the SHA-256; `size` is in bytes. A document that is there is processed
        unless it was, or is, and the answer is a replay. Raises what `upload` and the stream raise, and JobInProgress.
        """
        await self._refuse_beyond_quota(principal.owner_id, size, None)
        received = await self._receive(principal, sent, stream)
        return await self._record(principal, received, keyed_by(received.file.sha256 or ""), unless_there=True)

    async def get(self, principal: Principal, document_id: UUID) -> Document:
        """Return a document. Raises NotFound."""
        return await self._db.read(lambda conn: owned(conn, principal.owner_id, document_id))

    async def stored(self, principal: Principal, document_id: UUID, number: int | None = None) -> tuple[Document, File]:
        """Do what `owned_with_file` does. Raises NotFound, UploadIncomplete."""
        document, file = await self._db.read(
            lambda conn: owned_with_file(conn, principal.owner_id, document_id, number)
        )
        if document.status is Status.INITIATED:
            raise UploadIncomplete
        return document, file

    async def find(
        self, principal: Principal, filters: Filters, limit: int, cursor: str | None, *, count: bool = False
    ) -> DocumentPage:
        """Return a page of the documents that match the filters, and with `count` how many do.

        Raises InvalidCursor, SearchTooBroad, TooBusy.
        """
        return await listing.find(self._db, principal.owner_id, filters, limit, cursor, counted=count)

    async def count(self, principal: Principal, filters: Filters, most: int) -> int:
        """Return how many documents match the filters, up to a number. Raises SearchTooBroad, TooBusy."""
        return await listing.counted(self._db, principal.owner_id, filters, most)

    async def some(self, principal: Principal, document_ids: Collection[UUID]) -> dict[UUID, Document]:
        """Return those of the documents that there are, by id."""
        return await self._db.read(partial(listing.some, owner_id=principal.owner_id, document_ids=document_ids))

    async def by_status(self, principal: Principal) -> dict[Status, int]:
        """Return how many documents are in each status, up to `listing.MANY` + 1."""
        return await self._db.read(partial(listing.by_status, owner_id=principal.owner_id))

    async def by_hour(self, principal: Principal) -> list[activity.Hour]:
        """Return what was sent in each of the last hours."""
        return await self._db.read(partial(activity.by_hour, owner_id=principal.owner_id))

    async def children(
        self, principal: Principal, document_id: UUID, limit: int, cursor: str | None, *, count: bool = False
    ) -> DocumentPage:
        """Return a page of the documents that were made of a document, the first of them first.

        Raises NotFound, InvalidCursor, TooBusy.
        """
        await self.get(principal, document_id)
        made = Filters(parent_id=document_id, sort=Sort.CREATED_AT)
        return await self.find(principal, made, limit, cursor, count=count)

    async def edit(
        self, principal: Principal, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
    ) -> Document:
        """Change metadata if the document has one of the versions. Raises NotFound, PreconditionFailed,
        StorageFull, ValidationFailed for an `expires_at` that RETENTION_SECONDS do not allow."""
        self._quotas.reserve.require()

        def work(conn: Connection) -> Document:
            if expires_at := changes.get("expires_at"):
                self._require_expiry(owned(conn, principal.owner_id, document_id), expires_at)
            edited = repository.edit(conn, principal.owner_id, document_id, versions, changes)
            document = owned(conn, principal.owner_id, document_id)
            if not edited:
                raise PreconditionFailed
            return document

        return await self._db.write(required(principal, work))

    async def content(
        self, principal: Principal, document: Document, file: File, span: Span, *, number: int | None = None
    ) -> AsyncIterator[bytes]:
        """Return a span of a document's file, or of the one that had this number, in chunks. Raises NotFound, TooBusy,
        Unavailable, FileMissing, FileDamaged."""
        await self.note_read(document, DocumentContentRead(start=span.start, length=span.length, number=number))
        return await self._downloads.send(principal.owner_id, self._stored.read(file, span.start, span.length))

    async def note_read(self, document: Document, read: DocumentContentRead) -> None:
        """Record that something of a document's file is about to be sent, if AUDIT_READS says so."""
        if self._settings.audit_reads == "all":
            owner_id, document_id = document.owner_id, document.id
            await self._db.write(partial(events.append, event=read, user_id=owner_id, document_id=document_id))

    async def timeline(self, principal: Principal, document_id: UUID, limit: int, cursor: str | None) -> TimelinePage:
        """Return a page of a document's events, oldest first. Raises NotFound, InvalidCursor."""
        await self.get(principal, document_id)
        return await self.events_of(document_id, limit, cursor)

    async def latest_events(self, principal: Principal, document_id: UUID, limit: int) -> list[TimelineItem]:
        """Return the latest of a document's events, oldest first. Raises NotFound."""
        await self.get(principal, document_id)
        return await self._db.read(partial(events.latest_of, document_id=document_id, limit=limit))

    async def events_of(self, document_id: UUID, limit: int, cursor: str | None) -> TimelinePage:
        """Return the same of any document, whoever owns it and wherever it is. Raises InvalidCursor."""
        after = pagination.decode(cursor, "timeline", int).value if cursor else 0
        read = partial(events.timeline, document_id=document_id, after=after, limit=limit + 1)
        items, last = pagination.page(await self._db.read(read), limit)
        return TimelinePage(
            items=[item for _, item in items],
            next_cursor=pagination.encode("timeline", last[0], document_id) if last else None,
        )

    def _require_expiry(self, document: Document, expires_at: datetime) -> None:
        """Raise ValidationFailed for a moment at which the document would have been forgotten before."""
        kept = (expires_at - document.created_at).total_seconds()
        if document.expires_at is None or expires_at > document.expires_at:
            require_allowed(kept, self._settings.retention_seconds, "/expires_at")

    async def _refuse_beyond_quota(self, owner_id: UUID, size: int, key: str | None) -> None:
        """Raise StorageQuotaExceeded or DocumentQuotaExceeded if a file of this size will be refused, however small its
        metadata. A replay adds nothing, and is not refused."""
        if size > LARGE:
            check = partial(self._quotas.check, user_id=owner_id, more_bytes=size, more_documents=1)
            await self._intake.refuse_in_vain(owner_id, key, check)

    async def _receive(self, principal: Principal, sent: Sent, stream: AsyncIterator[bytes]) -> _Received:
        """Store a file, and check what is stated about it."""

        def stated() -> tuple[UploadMetadata, UploadJob | None]:
            metadata = metadata_of(sent.finish())
            require_allowed(metadata.expires_in or 0, self._settings.retention_seconds, "/metadata/expires_in")
            return metadata, self._job_for(principal, metadata.process) if metadata.process else None

        file, (metadata, job) = await self._receiver.file(principal.owner_id, sent, stream, stated)
        return _Received(file, sent.filename, metadata, job)

    async def _record(
        self, principal: Principal, received: _Received, key: str | None, *, unless_there: bool = False
    ) -> tuple[StoredResponse, UploadJob | None]:
        """Commit the rows of a stored file. Removes it again if the request is refused or its answer is a replay."""
        owner_id = principal.owner_id
        file, filename, metadata, job = received
        stated = metadata.model_dump(exclude=None if job else {"process"})
        if job:
            stated["process"]["processor"] = job.processor  # whether or not it was named
        request = {"filename": filename, "sha256": file.sha256, "metadata": stated}
        keyed = idempotency.keyed(owner_id, key, self._settings.idempotency_ttl, "POST", "/documents", request)

        def work(conn: Connection, pending: Pending) -> StoredResponse:
            pending.require()
            there = repository.same(conn, owner_id, filename, metadata.folder, file) if unless_there else None
            document = there or repository.add(conn, owner_id, filename, metadata, file)
            if job:
                document = job.accept(conn, document)
            if there is None:
                self._quotas.check(conn, owner_id)
            body, location = document.model_dump_json().encode(), f"/documents/{document.id}"
            return StoredResponse(201, body, location, document.id, replayed=there is not None)

        async with self._intake.recording(file) as pending:
            unit = partial(idempotency.once, request=keyed, work=partial(work, pending=pending))
            answer = await self._db.write(required(principal, unit), alone_with=owner_id)
            faults.hit("upload.after_commit")
            pending.needed = not answer.replayed
        structlog.contextvars.bind_contextvars(document_id=answer.location.rpartition("/")[2])
        return answer, None if answer.replayed else job


def require_allowed(seconds: float, longest: float, pointer: str) -> None:
    """Raise ValidationFailed if a document is to be kept for longer than RETENTION_SECONDS (0: forever)."""
    if longest and seconds > longest:
        detail = f"This service keeps documents for {longest:.0f} seconds after their upload at most."
        raise ValidationFailed(errors=[{"detail": detail, "pointer": pointer}])


def owned(conn: Connection, owner_id: UUID, document_id: UUID, *, locked: bool = False) -> Document:
    """Return the owner's document, `locked` as `repository.get` does. Raises NotFound, also for another owner's
    document."""
    document = repository.get(conn, owner_id, document_id, locked=locked)
    if document is None:
        raise NotFound
    return document


def owned_with_file(
    conn: Connection, owner_id: UUID, document_id: UUID, number: int | None = None
) -> tuple[Document, File]:
    """Return the owner's document and its file, or the previous one that has this number: the document then has the
    filename that it had with that. Raises NotFound."""
    document = owned(conn, owner_id, document_id)
    if number in (None, document.file_number):
        return document, repository.file_of(conn, document_id)
    file, filename = file_versions.stored(conn, document_id, number)
    return document.model_copy(update={"filename": filename}), file
