"""What users do with documents: upload, list, edit, download, delete."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import events, idempotency
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
from app.files.limits import UploadLimits
from app.files.multipart import BATCH, Form
from app.files.sniffing import sniff
from app.idempotency import KeyScope, StoredResponse
from app.limiter import Limiter
from app.settings import Settings
from app.storage.base import FOLDER, Staged, Storage
from app.telemetry import faults, metrics
from app.upkeep import Skipped
from app.web import pagination
from app.web.problems import invalid

DOWNLOAD_TIMEOUT = 5.0  # seconds that a download waits while no other ends
RELEASE_TIMEOUT = 0.5  # seconds that the answer to a failed upload waits for its Idempotency-Key to be released


def storage_key(document_id: UUID) -> str:
    """Return the key of a document's file. It is made of the id alone, never of anything that a client sent."""
    return f"{FOLDER}/{document_id}"


def document_of(key: str) -> UUID | None:
    """Return the document that a key belongs to, or None for a file that this service did not make."""
    try:
        return UUID(key.rpartition("/")[2])
    except ValueError:
        return None


class DocumentService:
    """Receives, finds, changes, sends and deletes the documents of users.

    Each method acts for one owner; another owner's document raises NotFound.
    """

    def __init__(
        self,
        db: Database,
        storage: Storage,
        limits: UploadLimits,
        settings: Settings,
        confirm_ownership: Callable[[], Awaitable[None]],
    ) -> None:
        """`confirm_ownership` raises Skipped when no file may be removed now."""
        self._db = db
        self._storage = storage
        self._uploads = limits
        self._settings = settings
        self._confirm_ownership = confirm_ownership
        self.max_upload_bytes = settings.max_upload_bytes
        self._downloads = Limiter(settings.download_slots, DOWNLOAD_TIMEOUT)

    async def upload(
        self, owner_id: UUID, boundary: bytes, body: AsyncIterator[bytes], key: str | None
    ) -> StoredResponse:
        """Receive one document: store its file, then commit its row. `key` is the Idempotency-Key, if there is one.

        A failure leaves nothing behind, or at worst a file without a document, which upkeep removes.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument and its subclasses, UnsafeArchive,
        ValidationFailed, RequestTimeout, RequestInProgress, IdempotencyKeyReused, TooBusy, StorageFull, Unavailable.
        """
        document_id = uuid7()
        async with self._reserved(owner_id, key, document_id) as scope, self._uploads.limiter.acquire():
            async with self._storage.create(storage_key(document_id)) as staged:
                form = await self._receive(staged, boundary, body)
                metadata = _metadata(form.finish())
                content_type = await staged.inspect(sniff)
                faults.hit("upload.after_temp")
                stored = await staged.commit()
            faults.hit("upload.after_rename")
            arrived = time.time()
            values = {
                "id": document_id,
                "owner_id": owner_id,
                "filename": form.filename,
                "content_type": content_type,
                "size": stored.size,
                "sha256": stored.sha256,
                "status": Status.UPLOADED,
            }
            return await self._record(values, metadata, scope, arrived)

    async def get(self, owner_id: UUID, document_id: UUID) -> Document:
        """Return a document. Raises NotFound."""
        return await self._db.read(lambda conn: owned(conn, owner_id, document_id))

    async def stored(self, owner_id: UUID, document_id: UUID) -> Document:
        """Return a document whose file is stored. Raises NotFound, UploadIncomplete."""
        document = await self.get(owner_id, document_id)
        if document.status is Status.INITIATED:
            raise UploadIncomplete
        return document

    async def find(self, owner_id: UUID, filters: Filters, limit: int, cursor: str | None) -> DocumentPage:
        """Return a page of the documents that match the filters. Raises InvalidCursor."""
        after = pagination.decode(cursor, filters.sort, _SORT_TYPES[filters.sort_column]) if cursor else None
        rows = await self._db.read(lambda conn: listing.page(conn, owner_id, filters, after, limit + 1))
        items, last = pagination.page(rows, limit)
        return DocumentPage(items=items, next_cursor=_cursor(last, filters) if last else None)

    async def edit(
        self, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
    ) -> Document:
        """Change metadata if the document has one of the versions. Raises NotFound, PreconditionFailed."""

        def work(conn: Connection) -> Document:
            edited = repository.edit(conn, owner_id, document_id, versions, changes)
            document = owned(conn, owner_id, document_id)
            if not edited:
                raise PreconditionFailed
            return document

        return await self._db.write(work)

    async def delete(self, owner_id: UUID, document_id: UUID) -> None:
        """Delete a document, but not its file (see `discard_file`). Raises NotFound, DocumentProcessing."""

        def work(conn: Connection) -> None:
            if not repository.remove(conn, owner_id, document_id):
                owned(conn, owner_id, document_id)
                raise DocumentProcessing

        await self._db.write(work)
        faults.hit("delete.after_commit")

    async def discard_file(self, document_id: UUID) -> None:
        """Remove the file of a deleted document now, instead of at the next sweep for orphans.

        If the file may be another database's, it is left to a sweep, which finds the event of the deletion.
        """
        with suppress(Skipped):
            await self._confirm_ownership()
            await self._storage.delete(storage_key(document_id))

    async def content(self, document_id: UUID, start: int, length: int) -> AsyncIterator[bytes]:
        """Return up to `length` bytes of a document's file from `start` on, in chunks.

        Fetches the first chunk before it returns, so that errors come before the response begins. Raises NotFound,
        TooBusy, Unavailable.
        """
        chunks = self._sent(document_id, start, length)
        first = await anext(chunks, b"")
        return _chained(first, chunks)

    async def timeline(self, owner_id: UUID, document_id: UUID, limit: int, cursor: str | None) -> TimelinePage:
        """Return a page of a document's events, oldest first. Raises NotFound, InvalidCursor."""
        after = pagination.decode(cursor, "timeline", int).value if cursor else 0

        def work(conn: Connection) -> list[tuple[int, TimelineItem]]:
            owned(conn, owner_id, document_id)
            return events.timeline(conn, document_id, after=after, limit=limit + 1)

        items, last = pagination.page(await self._db.read(work), limit)
        return TimelinePage(
            items=[item for _, item in items],
            next_cursor=pagination.encode("timeline", last[0], document_id) if last else None,
        )

    async def _receive(self, staged: Staged, boundary: bytes, body: AsyncIterator[bytes]) -> Form:
        form = Form(boundary, self.max_upload_bytes)
        async for chunk in self._uploads.paced(body):
            form.feed(chunk)
            if form.pending >= BATCH:
                await staged.write(form.take())
        await staged.write(form.take())
        return form

    async def _record(
        self, values: dict[str, Any], metadata: Metadata, scope: KeyScope | None, arrived: float
    ) -> StoredResponse:
        """Commit the row of a stored file. Removes the file again if the request is refused or its answer is a replay.

        `arrived` is when the file was stored, in seconds since the epoch.
        """
        request = {"filename": values["filename"], "sha256": values["sha256"], "metadata": metadata.model_dump()}
        fingerprint = idempotency.fingerprint("POST", "/documents", request)

        def work(conn: Connection) -> StoredResponse:
            if scope and (known := idempotency.lookup(conn, scope, fingerprint, reserved=True)):
                return known
            # If the process was paused here, or its clock jumped, the file may have been swept as an orphan.
            if time.time() - arrived > self._settings.orphan_grace_seconds / 2:
                raise StorageUnavailable
            document = repository.add(conn, values, metadata)
            answer = StoredResponse(201, document.model_dump_json().encode(), f"/documents/{document.id}")
            if scope:
                idempotency.store(conn, scope, fingerprint, answer)
            return answer

        try:
            answer = await self._db.write(work)
        except OutcomeUnknown:
            raise  # the document may exist and need its file; if it does not, upkeep removes the file
        except AppError:
            await self._storage.delete(storage_key(values["id"]))
            raise
        faults.hit("upload.after_commit")
        if answer.replayed:
            await self._storage.delete(storage_key(values["id"]))
        else:
            metrics.uploaded_bytes.inc(values["size"])
        return answer

    @asynccontextmanager
    async def _reserved(self, owner_id: UUID, key: str | None, holder: UUID) -> AsyncIterator[KeyScope | None]:
        """Reserve the Idempotency-Key, if there is one, while the body arrives. Raises RequestInProgress."""
        if key is None:
            yield None
            return
        scope = KeyScope(owner_id, key, self._settings.idempotency_ttl)
        lease = self._settings.lease_seconds
        await self._db.write(lambda conn: idempotency.reserve(conn, scope, holder, lease))
        try:
            yield scope
        except BaseException:
            # The reservation also expires by itself, so a locked database must not delay the answer a second time.
            with suppress(AppError, TimeoutError):
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await asyncio.shield(self._db.write(lambda conn: idempotency.release(conn, scope, holder)))
            raise

    async def _sent(self, document_id: UUID, start: int, length: int) -> AsyncIterator[bytes]:
        """Yield the file's chunks, limited until the last one is sent or the client disconnects."""
        async with self._downloads.acquire():
            async for chunk in self._storage.read(storage_key(document_id), start, length):
                yield chunk


def owned(conn: Connection, owner_id: UUID, document_id: UUID) -> Document:
    """Return the owner's document. Raises NotFound, also for another owner's document."""
    document = repository.get(conn, owner_id, document_id)
    if document is None:
        raise NotFound
    return document


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
