"""What users do with documents: upload, list, edit, download, delete."""

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import events, idempotency
from app.auth.principal import Principal
from app.database import Database
from app.documents import listing, repository
from app.documents.lifecycle import Status
from app.documents.schemas import Document, DocumentPage, Filters, Metadata
from app.errors import (
    AppError,
    DocumentProcessing,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    StorageUnavailable,
    UploadIncomplete,
)
from app.events import TimelineItem, TimelinePage
from app.files.claim import Claim
from app.files.models import File, key_of
from app.files.multipart import Form
from app.files.receive import Receiver
from app.files.sniffing import sniff
from app.idempotency import InProgress, StoredResponse
from app.limiter import Limiter
from app.settings import Settings
from app.storage.base import Storage
from app.telemetry import faults, metrics
from app.upkeep import Skipped
from app.web import pagination
from app.web.conditional import Span
from app.web.problems import invalid

log = structlog.get_logger()

DOWNLOAD_TIMEOUT = 5.0  # seconds that a download waits while no other ends


class DocumentService:
    """Receives, finds, changes, sends and deletes the documents of users.

    Each method acts for one owner; another owner's document raises NotFound.
    """

    def __init__(self, db: Database, storage: Storage, receiver: Receiver, claim: Claim, settings: Settings) -> None:
        self._db = db
        self._storage = storage
        self._receiver = receiver
        self._claim = claim
        self._settings = settings
        self.max_upload_bytes = settings.max_upload_bytes
        self._in_progress = InProgress(db)
        self._downloads = Limiter(settings.download_slots, DOWNLOAD_TIMEOUT)

    async def upload(
        self, principal: Principal, form: Form, body: AsyncIterator[bytes], key: str | None
    ) -> StoredResponse:
        """Receive one document: store its file, then commit its row. `key` is the Idempotency-Key, if there is one.

        A failure leaves nothing behind, or at worst a file without a row, which upkeep removes.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument and its subclasses, UnsafeArchive,
        ValidationFailed, RequestTimeout, RequestInProgress, IdempotencyKeyReused, TooBusy, StorageFull, Unavailable.
        """
        file_id = uuid7()
        async with self._in_progress.hold(principal.owner_id, key):
            async with self._receiver.receiving(key_of(file_id), form, body) as staged:
                metadata = _metadata(form.finish())
                content_type = await staged.inspect(sniff)
                faults.hit("upload.after_temp")
                stored = await staged.commit()
            faults.hit("upload.after_rename")
            file = File(file_id, key_of(file_id), content_type, stored.size, stored.sha256)
            return await self._record(principal.owner_id, form.filename, metadata, file, key)

    async def get(self, principal: Principal, document_id: UUID) -> Document:
        """Return a document. Raises NotFound."""
        return await self._db.read(lambda conn: owned(conn, principal.owner_id, document_id))

    async def stored(self, principal: Principal, document_id: UUID) -> tuple[Document, File]:
        """Return a document and its stored file. Raises NotFound, UploadIncomplete."""
        document, file = await self._db.read(lambda conn: owned_with_file(conn, principal.owner_id, document_id))
        if document.status is Status.INITIATED:
            raise UploadIncomplete
        return document, file

    async def find(self, principal: Principal, filters: Filters, limit: int, cursor: str | None) -> DocumentPage:
        """Return a page of the documents that match the filters. Raises InvalidCursor."""
        after = pagination.decode(cursor, filters.sort, _SORT_TYPES[filters.sort_column]) if cursor else None
        rows = await self._db.read(lambda conn: listing.page(conn, principal.owner_id, filters, after, limit + 1))
        items, last = pagination.page(rows, limit)
        return DocumentPage(items=items, next_cursor=_cursor(last, filters) if last else None)

    async def edit(
        self, principal: Principal, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
    ) -> Document:
        """Change metadata if the document has one of the versions. Raises NotFound, PreconditionFailed."""

        def work(conn: Connection) -> Document:
            edited = repository.edit(conn, principal.owner_id, document_id, versions, changes)
            document = owned(conn, principal.owner_id, document_id)
            if not edited:
                raise PreconditionFailed
            return document

        return await self._db.write(work)

    async def delete(self, principal: Principal, document_id: UUID) -> str:
        """Delete a document; return the key of its file (see `remove_file`). Raises NotFound, DocumentProcessing."""

        def work(conn: Connection) -> str:
            key = repository.remove(conn, principal.owner_id, document_id)
            if key is None:
                owned(conn, principal.owner_id, document_id)
                raise DocumentProcessing
            return key

        key = await self._db.write(work)
        faults.hit("delete.after_commit")
        return key

    async def remove_file(self, key: str) -> None:
        """Remove the file of a deleted document now, instead of at the next sweep for orphans.

        If the file may be another database's, it is left to a sweep.
        """
        with suppress(Skipped):
            await self._claim.confirm_deletion()
            await self._remove(key)

    async def content(self, file: File, span: Span) -> AsyncIterator[bytes]:
        """Return a span of a stored file, in chunks.

        Fetches the first chunk before it returns, so that errors come before the response begins. Raises NotFound,
        TooBusy, Unavailable.
        """
        chunks = self._sent(file, span)
        first = await anext(chunks, b"")
        return _chained(first, chunks)

    async def timeline(self, principal: Principal, document_id: UUID, limit: int, cursor: str | None) -> TimelinePage:
        """Return a page of a document's events, oldest first. Raises NotFound, InvalidCursor."""
        after = pagination.decode(cursor, "timeline", int).value if cursor else 0

        def work(conn: Connection) -> list[tuple[int, TimelineItem]]:
            owned(conn, principal.owner_id, document_id)
            return events.timeline(conn, document_id, after=after, limit=limit + 1)

        items, last = pagination.page(await self._db.read(work), limit)
        return TimelinePage(
            items=[item for _, item in items],
            next_cursor=pagination.encode("timeline", last[0], document_id) if last else None,
        )

    async def _record(
        self, owner_id: UUID, filename: str, metadata: Metadata, file: File, key: str | None
    ) -> StoredResponse:
        """Commit the rows of a stored file. Removes it again if the request is refused or its answer is a replay."""
        stored_at = time.time()
        request = {"filename": filename, "sha256": file.sha256, "metadata": metadata.model_dump()}
        keyed = idempotency.keyed(owner_id, key, self._settings.idempotency_ttl, "POST", "/documents", request)

        def work(conn: Connection) -> StoredResponse:
            # If the process was paused here, or its clock jumped, the file may have been swept as an orphan.
            if time.time() - stored_at > self._settings.orphan_grace_seconds / 2:
                raise StorageUnavailable
            document = repository.add(conn, owner_id, filename, metadata, file)
            return StoredResponse(201, document.model_dump_json().encode(), f"/documents/{document.id}")

        try:
            answer = await self._db.write(partial(idempotency.once, request=keyed, work=work))
        except OutcomeUnknown:
            raise  # the document may exist and need its file; if it does not, upkeep removes the file
        except AppError:
            await self._remove(file.key)
            raise
        faults.hit("upload.after_commit")
        if answer.replayed:
            await self._remove(file.key)
        else:
            metrics.uploaded_bytes.inc(file.size)
        return answer

    async def _remove(self, key: str) -> None:
        """Remove a file that has no document. Where that fails, upkeep does so, and the answer stays what it is."""
        try:
            await self._storage.delete(key)
        except AppError as error:
            log.warning("storage.left_behind", key=key, reason=error.code)

    async def _sent(self, file: File, span: Span) -> AsyncIterator[bytes]:
        """Yield the span's chunks, limited until the last one is sent or the client disconnects."""
        async with self._downloads.acquire():
            async for chunk in self._storage.read(file.key, span.start, span.length):
                yield chunk


def owned(conn: Connection, owner_id: UUID, document_id: UUID) -> Document:
    """Return the owner's document. Raises NotFound, also for another owner's document."""
    document = repository.get(conn, owner_id, document_id)
    if document is None:
        raise NotFound
    return document


def owned_with_file(conn: Connection, owner_id: UUID, document_id: UUID) -> tuple[Document, File]:
    """Return the owner's document and its file. Raises NotFound as `owned` does."""
    return owned(conn, owner_id, document_id), repository.file_of(conn, document_id)


def _metadata(sent: bytes) -> Metadata:
    try:
        return Metadata.model_validate_json(sent)
    except ValidationError as error:
        raise invalid(error, "metadata") from None


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _cursor(last: Document, filters: Filters) -> str:
    return pagination.encode(filters.sort, getattr(last, filters.sort_column), last.id)


_SORT_TYPES: dict[str, type[int | str | datetime]] = {"created_at": datetime, "filename": str, "size": int}
