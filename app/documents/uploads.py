"""Direct uploads: a client announces a file, sends it to a URL of the storage, and completes the upload.

A document's key never holds more than one file. That file is removed only when no completion can refer to it any more:
after the document was deleted, or its upload was rejected for good. However late a removal is executed, it therefore
never removes the file of a valid document.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import idempotency
from app.database import Database, after_commit
from app.documents import repository
from app.documents.lifecycle import Status
from app.documents.schemas import Document
from app.documents.service import owned, storage_key
from app.documents.upload_schemas import NewUpload, Upload
from app.errors import (
    AlreadyStored,
    ContentTypeMismatch,
    InvalidUploadUrl,
    LengthRequired,
    NotFound,
    PayloadTooLarge,
    Sha256Mismatch,
    SizeMismatch,
    StorageUnavailable,
    UnsafeArchive,
    UnsupportedMediaType,
    UploadMissing,
    UploadRejected,
)
from app.files.limits import UPLOAD_TIMEOUT, UploadLimits
from app.files.multipart import BATCH
from app.files.signed_urls import OwnUrls
from app.files.sniffing import sniff
from app.idempotency import KeyScope, StoredResponse
from app.jobs.models import Failure
from app.limiter import Limiter
from app.settings import Settings
from app.storage.base import Announced, Presigner, Storage
from app.telemetry import faults, metrics

Facts = dict[str, Any]  # `size`, `sha256` and `content_type`, columns of a document

_REASONS = (SizeMismatch, ContentTypeMismatch, Sha256Mismatch, UnsafeArchive, UnsupportedMediaType)


class Sent(NamedTuple):
    """What the headers of a request say about the file in its body. `size` is None without a Content-Length."""

    size: int | None
    content_type: str


class UploadService:
    """Announces, receives and completes direct uploads.

    A storage that can presign receives the files itself; for any other, `urls` leads back to this service.
    """

    def __init__(self, db: Database, storage: Storage, limits: UploadLimits, urls: OwnUrls, settings: Settings) -> None:
        self._db = db
        self._storage = storage
        self._uploads = limits
        self._urls = urls
        self._presigner = storage if isinstance(storage, Presigner) else urls
        self._settings = settings
        self._completions = Limiter(settings.upload_slots, UPLOAD_TIMEOUT)

    async def initiate(self, owner_id: UUID, wanted: NewUpload, base_url: str, key: str | None) -> StoredResponse:
        """Announce a document: insert its row and return a URL for its file.

        `base_url` is the service's own as the client sees it, `key` the Idempotency-Key if there is one.

        Raises PayloadTooLarge, RequestInProgress, IdempotencyKeyReused.
        """
        if wanted.size > self._settings.max_upload_bytes:
            raise PayloadTooLarge
        document_id, ttl = uuid7(), self._settings.upload_url_ttl
        upload = await self._upload(document_id, wanted, self._settings.public_url or base_url)
        values = wanted.model_dump(include={"filename", "content_type", "size", "sha256"})
        values |= {"id": document_id, "owner_id": owner_id, "status": Status.INITIATED}
        answer = StoredResponse(201, upload.model_dump_json().encode(), f"/documents/{document_id}")
        # A replayed URL must still be valid; ours and S3's expire up to a second early.
        scope = KeyScope(owner_id, key, min(self._settings.idempotency_ttl, ttl - 1)) if key else None
        fingerprint = idempotency.fingerprint("POST", "/documents/initiate-upload", wanted.model_dump(mode="json"))

        def work(conn: Connection) -> StoredResponse:
            if scope and (known := idempotency.lookup(conn, scope, fingerprint)):
                return known
            repository.add(conn, values, wanted.metadata, expires_in=ttl)
            if scope:
                idempotency.store(conn, scope, fingerprint, answer)
            return answer

        answer = await self._db.write(work)
        faults.hit("initiate.after_commit")
        return answer

    async def receive(
        self, document_id: UUID, expires: int, signature: str, sent: Sent, body: AsyncIterator[bytes]
    ) -> None:
        """Receive the file of an announced document, for a storage that does not do so itself.

        Raises InvalidUploadUrl, NotFound, AlreadyStored, UploadRejected, LengthRequired, SizeMismatch,
        ContentTypeMismatch, Sha256Mismatch, RequestTimeout, TooBusy, StorageFull, Unavailable.
        """
        key = storage_key(document_id)
        if self._presigner is not self._urls:  # the URL was made for another storage
            raise InvalidUploadUrl
        self._urls.verify(key, expires, signature)
        found = await self._db.read(lambda conn: repository.announced(conn, document_id))
        document = await self._expected(found, sent)
        # It must not be swept while it arrives: an upload that began in time must end within half the grace period.
        longest = expires - time.time() + self._settings.orphan_grace_seconds / 2
        async with self._uploads.limiter.acquire(), self._storage.create(key) as staged:
            async for batch in _batches(self._uploads.paced(body, longest)):
                await staged.write(batch)
            received = await staged.received()
            _compare(document, received.size, received.sha256)
            await staged.commit()
        faults.hit("put.after_link")

    async def complete(self, owner_id: UUID, document_id: UUID) -> Document:
        """Verify the file that was sent and make the document UPLOADED. Returns a completed document unchanged.

        Raises NotFound, UploadMissing, UploadRejected, TooBusy, StorageFull, Unavailable.
        """
        document = await self._owned(owner_id, document_id)
        if _is_pending(document):
            async with self._completions.acquire():
                document = await self._settle(document)
        if document.status is Status.INITIATED and document.error is not None:
            await self._storage.delete(storage_key(document_id))
            raise UploadRejected(document.error.detail, error=document.error.model_dump())
        return document

    async def _owned(self, owner_id: UUID, document_id: UUID) -> Document:
        return await self._db.read(lambda conn: owned(conn, owner_id, document_id))

    async def _upload(self, document_id: UUID, wanted: NewUpload, base_url: str) -> Upload:
        key, ttl = storage_key(document_id), self._settings.upload_url_ttl
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ttl)
        file = Announced(wanted.size, wanted.content_type, wanted.sha256)
        presigned = await self._presigner.presign(key, file, ttl)
        return Upload(
            document_id=document_id,
            object_key=presigned.name,
            upload_url=urljoin(f"{base_url.rstrip('/')}/", presigned.url),
            headers=dict(presigned.headers),
            expires_at=expires_at,
        )

    async def _expected(self, document: Document | None, sent: Sent) -> Document:
        """Return the document if it expects this file, as far as the headers show.

        Raises NotFound, AlreadyStored, UploadRejected, LengthRequired, SizeMismatch, ContentTypeMismatch.
        """
        if document is None:
            raise NotFound
        if document.status is not Status.INITIATED:
            raise AlreadyStored
        if document.error is not None:
            raise UploadRejected(document.error.detail, error=document.error.model_dump())
        if sent.size is None:
            raise LengthRequired
        if sent.size != document.size:
            raise SizeMismatch
        if sent.content_type != document.content_type:
            raise ContentTypeMismatch
        with suppress(NotFound):
            await self._has_byte(document.id, 0)
            raise AlreadyStored
        return document

    async def _settle(self, document: Document) -> Document:
        """Verify the upload and record its outcome, unless another call has done so first. Raises UploadMissing."""
        outcome: Facts | Failure
        try:
            outcome = await self._verified(document)
        except _REASONS as reason:
            outcome = Failure(code=reason.code, detail=reason.detail)
        except UploadMissing:
            document = await self._owned(document.owner_id, document.id)
            if _is_pending(document):
                raise
            return document

        def work(conn: Connection) -> Document:
            if isinstance(outcome, Failure):
                repository.reject(conn, document, outcome)
            elif repository.complete(conn, document, outcome):
                after_commit(conn, partial(metrics.uploaded_bytes.inc, document.size))
            faults.hit("complete.before_commit")
            return owned(conn, document.owner_id, document.id)

        settled = await self._db.write(work)
        faults.hit("complete.after_commit")
        return settled

    async def _verified(self, document: Document) -> Facts:
        """Return the facts of the file that was sent. Raises UploadMissing, or one of _REASONS if the file is wrong."""
        try:
            if await self._has_byte(document.id, document.size):  # before the copy: it may be far larger than announced
                raise SizeMismatch
            await self._storage.sync(storage_key(document.id))
            async with self._storage.local_copy(storage_key(document.id)) as path:
                return await asyncio.to_thread(_examine, path, document)
        except NotFound:
            raise UploadMissing from None
        except OSError as error:
            raise StorageUnavailable from error

    async def _has_byte(self, document_id: UUID, position: int) -> bool:
        """Return whether the file has a byte at the position. Raises NotFound."""
        return bool([chunk async for chunk in self._storage.read(storage_key(document_id), position, 1)])


def _is_pending(document: Document) -> bool:
    """Return whether the upload is neither completed nor rejected."""
    return document.status is Status.INITIATED and document.error is None


def _examine(path: Path, document: Document) -> Facts:
    """Return the facts of a file. Raises one of _REASONS if they differ from what was announced. Blocks."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        _compare(document, size, sha256)
        content_type = sniff(file)
    if content_type != document.content_type:
        raise ContentTypeMismatch(f"The file is {content_type}.")
    return {"size": size, "sha256": sha256, "content_type": content_type}


def _compare(document: Document, size: int, sha256: str) -> None:
    """Compare a file with what was announced. Raises SizeMismatch, Sha256Mismatch."""
    if size != document.size:
        raise SizeMismatch
    if document.sha256 not in {None, sha256}:
        raise Sha256Mismatch


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the chunks in lists of at least BATCH bytes, except for the last one."""
    batch: list[bytes] = []
    size = 0
    async for chunk in chunks:
        batch.append(chunk)
        size += len(chunk)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    yield batch
