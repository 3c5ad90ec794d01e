"""What users do with documents."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import events, idempotency
from app.database import Database
from app.documents import listing, repository
from app.documents.gate import Gate
from app.documents.intake import BATCH, Form
from app.documents.lifecycle import Status
from app.documents.schemas import Document, DocumentPage, Filters, Metadata
from app.documents.slots import slot
from app.documents.sniffing import sniff
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
from app.idempotency import Answer, Guard
from app.settings import Settings
from app.storage.base import FOLDER, Staged, Storage
from app.telemetry import faults, metrics
from app.web import pagination

DOWNLOAD_PATIENCE = 5.0  # seconds that a download waits for a slot
RELEASE_PATIENCE = 0.5  # seconds that the answer to a failed upload waits for its key to be given up


def storage_key(document_id: UUID) -> str:
    """Where a document's bytes are. Made of the id alone, never of anything that a client sent."""
    return f"{FOLDER}/{document_id}"


def document_of(key: str) -> UUID | None:
    """The document whose bytes a key holds; None for a file that is not of our making."""
    try:
        return UUID(key.rpartition("/")[2])
    except ValueError:
        return None


class DocumentService:
    def __init__(
        self, db: Database, storage: Storage, gate: Gate, settings: Settings, objection: Callable[[], str | None]
    ) -> None:
        """`objection`: why no file is to be removed now, if there is a reason."""
        self._db = db
        self._storage = storage
        self._gate = gate
        self._settings = settings
        self._objection = objection
        self.max_upload_bytes = settings.max_upload_bytes
        self._downloads = asyncio.Semaphore(settings.download_slots)

    async def upload(self, owner_id: UUID, boundary: bytes, body: AsyncIterator[bytes], key: str | None) -> Answer:
        """Receive one document: stage, sync, link, then one commit. Whatever goes wrong, nothing is left behind, or at
        the worst an orphan for the sweeper.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument and its kin, UnsafeArchive, ValidationFailed,
        RequestTimeout, RequestInProgress, IdempotencyKeyReused, TooBusy, StorageFull, Unavailable.
        """
        document_id = uuid7()
        async with self._reserved(owner_id, key, document_id) as guard, self._gate.slot():
            async with self._storage.create(storage_key(document_id)) as staged:
                form = await self._receive(staged, boundary, body)
                metadata = form.finish()
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
            return await self._record(values, metadata, guard, arrived)

    async def get(self, owner_id: UUID, document_id: UUID) -> Document:
        """Raises NotFound."""
        return await self._db.read(lambda conn: owned(conn, owner_id, document_id), brief=True)

    async def stored(self, owner_id: UUID, document_id: UUID) -> Document:
        """A document whose bytes are here. Raises NotFound, UploadIncomplete."""
        document = await self.get(owner_id, document_id)
        if document.status is Status.INITIATED:
            raise UploadIncomplete
        return document

    async def find(self, owner_id: UUID, filters: Filters, limit: int, cursor: str | None) -> DocumentPage:
        """Raises InvalidCursor."""
        after = pagination.decode(cursor, filters.sort, _KINDS[filters.sort_column]) if cursor else None
        brief = filters == Filters(sort=filters.sort)  # then an index has the page as it stands
        rows = await self._db.read(lambda conn: listing.page(conn, owner_id, filters, after, limit + 1), brief=brief)
        items, last = pagination.page(rows, limit)
        return DocumentPage(items=items, next_cursor=_cursor(last, filters) if last else None)

    async def edit(
        self, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
    ) -> Document:
        """Raises NotFound, PreconditionFailed."""

        def work(conn: Connection) -> Document:
            edited = repository.edit(conn, owner_id, document_id, versions, changes)
            document = owned(conn, owner_id, document_id)
            if not edited:
                raise PreconditionFailed
            return document

        return await self._db.write(work)

    async def delete(self, owner_id: UUID, document_id: UUID) -> None:
        """Raises NotFound, DocumentProcessing. The file is `discard_file`'s to remove."""

        def work(conn: Connection) -> None:
            if not repository.remove(conn, owner_id, document_id):
                owned(conn, owner_id, document_id)
                raise DocumentProcessing

        await self._db.write(work)
        faults.hit("delete.after_commit")

    async def discard_file(self, document_id: UUID) -> None:
        """Remove the file of a deleted document now rather than at the next sweep for orphans.

        Not while the file may be another database's: then it is left to a sweep, which finds the event of its end.
        """
        if self._objection() is None:
            await self._storage.delete(storage_key(document_id))

    async def content(self, document_id: UUID, start: int, length: int) -> AsyncIterator[bytes]:
        """A document's bytes. The first chunk is there when this returns, so a missing file is an error in time.

        Raises TooBusy, Unavailable.
        """
        chunks = self._sent(document_id, start, length)
        first = await anext(chunks, b"")
        return _chained(first, chunks)

    async def timeline(self, owner_id: UUID, document_id: UUID, limit: int, cursor: str | None) -> TimelinePage:
        """Raises NotFound, InvalidCursor."""
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
        async for chunk in self._gate.paced(body):
            form.feed(chunk)
            if form.pending >= BATCH:
                await staged.write(form.take())
        await staged.write(form.take())
        return form

    async def _record(self, values: dict[str, Any], metadata: Metadata, guard: Guard | None, arrived: float) -> Answer:
        """Commit the row of a stored file; a replayed or refused one's file is removed again."""
        request = {"filename": values["filename"], "sha256": values["sha256"], "metadata": metadata.model_dump()}
        print_ = idempotency.fingerprint("POST", "/documents", request)

        def work(conn: Connection) -> Answer:
            if guard and (known := idempotency.recall(conn, guard, print_, reserved=True)):
                return known
            # A process that was paused here, or whose clock jumped, must not name a file swept as an orphan meanwhile.
            if time.time() - arrived > self._settings.orphan_grace_seconds / 2:
                raise StorageUnavailable
            document = repository.add(conn, values, metadata)
            answer = Answer(201, document.model_dump_json().encode(), f"/documents/{document.id}")
            if guard:
                idempotency.remember(conn, guard, print_, answer)
            return answer

        try:
            answer = await self._db.write(work)
        except OutcomeUnknown:
            raise  # if the document is there, so must be its file; if not, the file is swept as an orphan
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
    async def _reserved(self, owner_id: UUID, key: str | None, holder: UUID) -> AsyncIterator[Guard | None]:
        """Hold the Idempotency-Key, if there is one, while the body arrives. Raises RequestInProgress."""
        if key is None:
            yield None
            return
        guard = Guard(owner_id, key, self._settings.idempotency_ttl)
        lease = self._settings.lease_seconds
        await self._db.write(lambda conn: idempotency.reserve(conn, guard, holder, lease))
        try:
            yield guard
        except BaseException:
            # It expires by itself: a locked database must not make the answer wait for its end a second time.
            with suppress(AppError, TimeoutError):
                async with asyncio.timeout(RELEASE_PATIENCE):
                    await asyncio.shield(self._db.write(lambda conn: idempotency.release(conn, guard, holder)))
            raise

    async def _sent(self, document_id: UUID, start: int, length: int) -> AsyncIterator[bytes]:
        """The slot is given back with the last chunk, or when the client is gone."""
        async with slot(self._downloads, DOWNLOAD_PATIENCE):
            async for chunk in self._storage.read(storage_key(document_id), start, length):
                yield chunk


def owned(conn: Connection, owner_id: UUID, document_id: UUID) -> Document:
    """The owner's document. Raises NotFound, also for another's."""
    document = repository.get(conn, owner_id, document_id)
    if document is None:
        raise NotFound
    return document


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _cursor(last: Document, filters: Filters) -> str:
    return pagination.encode(filters.sort, getattr(last, filters.sort_column), last.id)


_KINDS: dict[str, type[int | str | datetime]] = {"created_at": datetime, "filename": str, "size": int}
