"""Direct uploads: a client announces a file, sends it to a URL of the storage, and completes the upload.

A document's key never holds more than one file. That file is removed only when no completion can refer to it any more:
after the document was deleted, or its upload was rejected for good. However late a removal is executed, it therefore
never removes the file of a valid document.
"""

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple
from urllib.parse import urljoin
from uuid import UUID

import structlog
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import idempotency
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database, after_commit
from app.documents import repository, trash
from app.documents.lifecycle import Status
from app.documents.schemas import Document
from app.documents.service import owned, owned_with_file, require_allowed
from app.documents.upload_schemas import NewUpload, Upload
from app.errors import (
    AlreadyStored,
    ContentTypeMismatch,
    InvalidUploadUrl,
    LengthRequired,
    NotFound,
    PayloadTooLarge,
    SizeMismatch,
    UploadMissing,
    UploadRejected,
)
from app.events.failure import Failure
from app.files.models import File, key_of
from app.files.orphans import Orphans
from app.files.receive import REJECTIONS, Batch, Receiver, compare
from app.files.signed_urls import OwnUrls
from app.idempotency import StoredResponse
from app.quotas import Quotas
from app.settings import Settings
from app.storage.base import Announced, Presigner, Storage
from app.telemetry import faults, metrics

UNSTATED = "application/octet-stream"
"""The media type of bytes whose sender does not say what they are (RFC 9110 §8.3)."""


class Sent(NamedTuple):
    """What the headers of a request say about the file in its body. `size` is None without a Content-Length."""

    size: int | None
    content_type: str


class UploadService:
    """Announces, receives and completes direct uploads.

    A storage that can presign receives the files itself; for any other, `urls` leads back to this service.
    """

    def __init__(
        self,
        db: Database,
        storage: Storage,
        receiver: Receiver,
        urls: OwnUrls,
        quotas: Quotas,
        settings: Settings,
    ) -> None:
        self._db = db
        self._storage = storage
        self._receiver = receiver
        self._urls = urls
        self._quotas = quotas
        self._presigner = storage if isinstance(storage, Presigner) else urls
        self._settings = settings

    async def initiate(self, principal: Principal, wanted: NewUpload, base_url: str, key: str | None) -> StoredResponse:
        """Announce a document: insert its row and return a URL for its file.

        `base_url` is the service's own as the client sees it, `key` the Idempotency-Key if there is one.

        Raises PayloadTooLarge, IdempotencyKeyReused, StorageQuotaExceeded, DocumentQuotaExceeded, TooManyUploads.
        """
        self._quotas.reserve.require()
        if wanted.size > self._settings.max_upload_bytes:
            raise PayloadTooLarge
        require_allowed(wanted.metadata.expires_in or 0, self._settings.retention_seconds, "/metadata/expires_in")
        file_id, ttl = uuid7(), self._settings.upload_url_ttl
        file = File(file_id, key_of(file_id), wanted.content_type, wanted.size, None)
        upload = await self._upload(file, wanted.sha256, self._settings.public_url or base_url)
        # A replayed URL must still be valid; ours and S3's expire up to a second early.
        kept = min(self._settings.idempotency_ttl, ttl - 1)
        body = wanted.model_dump(mode="json")
        keyed = idempotency.keyed(principal.owner_id, key, kept, "POST", "/documents/initiate-upload", body)

        def work(conn: Connection) -> StoredResponse:
            repository.announce(
                conn, principal.owner_id, wanted.filename, wanted.metadata, file, sha256=wanted.sha256, expires_in=ttl
            )
            self._quotas.check_announced(conn, principal.owner_id)
            body = upload.model_dump_json().encode()
            return StoredResponse(201, body, f"/documents/{upload.document_id}", upload.document_id)

        once = required(principal, partial(idempotency.once, request=keyed, work=work))
        answer = await self._db.write(once, alone_with=principal.owner_id)
        faults.hit("initiate.after_commit")
        structlog.contextvars.bind_contextvars(document_id=answer.location.rpartition("/")[2])
        return answer

    async def receive(
        self, document_id: UUID, expires: int, signature: str, sent: Sent, body: AsyncIterator[bytes]
    ) -> None:
        """Receive the file of an announced document, for a storage that does not do so itself.

        Raises InvalidUploadUrl, NotFound, AlreadyStored, UploadRejected, LengthRequired, SizeMismatch,
        ContentTypeMismatch, Sha256Mismatch, RequestTimeout, TooBusy, StorageFull, Unavailable.
        """
        if self._presigner is not self._urls:  # the URL was made for another storage
            raise InvalidUploadUrl
        self._urls.verify(document_id, expires, signature)
        found = await self._db.read(lambda conn: repository.announced(conn, document_id))
        if found is None:
            raise NotFound
        document, file = found
        structlog.contextvars.bind_contextvars(user_id=str(document.owner_id))
        file = await self._expected(document, file, sent)
        # It must not be swept while it arrives: an upload that began in time must end within half the grace period.
        longest = expires - time.time() + self._settings.orphan_grace_seconds / 2
        async with self._receiver.receiving(document.owner_id, file.key, Batch(), body, longest=longest) as staged:
            compare(file, await staged.received())
            await staged.commit()
        faults.hit("put.after_link")

    async def complete(self, principal: Principal, document_id: UUID) -> Document:
        """Verify the file that was sent and make the document UPLOADED. Returns a completed document unchanged.

        Raises NotFound, UploadMissing, UploadRejected, TooBusy, StorageFull, Unavailable.
        """
        document, file = await self._owned(principal.owner_id, document_id)
        if _is_pending(document):
            self._quotas.reserve.require()
            document = await self._settle(document, file)
        if document.status is Status.INITIATED and document.error is not None:
            await self._storage.delete(file.key)
            raise UploadRejected(document.error.detail, error=document.error.model_dump())
        return document

    async def _owned(self, owner_id: UUID, document_id: UUID) -> tuple[Document, File]:
        return await self._db.read(lambda conn: owned_with_file(conn, owner_id, document_id))

    async def _upload(self, file: File, sha256: str | None, base_url: str) -> Upload:
        ttl = self._settings.upload_url_ttl
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ttl)
        announced = Announced(file.size, file.content_type, sha256)
        presigned = await self._presigner.presign(file.key, announced, ttl)
        return Upload(
            document_id=file.id,
            object_key=presigned.name,
            upload_url=urljoin(f"{base_url.rstrip('/')}/", presigned.url),
            headers=dict(presigned.headers),
            expires_at=expires_at,
        )

    async def _expected(self, document: Document, file: File, sent: Sent) -> File:
        """Return the file that is expected, if this is it as far as the headers show.

        Raises AlreadyStored, UploadRejected, LengthRequired, SizeMismatch, ContentTypeMismatch.
        """
        if document.status is not Status.INITIATED:
            raise AlreadyStored
        if document.error is not None:
            raise UploadRejected(document.error.detail, error=document.error.model_dump())
        if sent.size is None:
            raise LengthRequired
        if sent.size != document.size:
            raise SizeMismatch
        if sent.content_type not in {document.content_type, UNSTATED}:
            raise ContentTypeMismatch
        with suppress(NotFound):
            await self._receiver.has_byte(file.key, 0)
            raise AlreadyStored
        return replace(file, sha256=document.sha256)

    async def _settle(self, document: Document, file: File) -> Document:
        """Verify the upload and record its outcome, unless another call has done so first. Raises UploadMissing."""
        outcome: File | Failure
        try:
            outcome = await self._receiver.stored(document.owner_id, replace(file, sha256=document.sha256))
        except REJECTIONS as reason:
            outcome = Failure(code=reason.code, detail=reason.detail)
        except UploadMissing:
            document, _ = await self._owned(document.owner_id, document.id)
            if _is_pending(document):
                raise
            return document

        def work(conn: Connection) -> Document:
            if isinstance(outcome, Failure):
                repository.reject(conn, document, outcome)
            elif repository.complete(conn, document, outcome):
                after_commit(conn, partial(metrics.uploaded_bytes.inc, outcome.size))
            faults.hit("complete.before_commit")
            return owned(conn, document.owner_id, document.id)

        settled = await self._db.write(work, alone_with=document.owner_id)
        faults.hit("complete.after_commit")
        return settled


async def expire_uploads(db: Database, orphans: Orphans, *, grace: float) -> None:
    """Delete documents whose upload was never completed, and what was sent of them. Raises Skipped if the files are
    another database's."""
    await orphans.claim.confirm()
    while keys := await db.write(partial(trash.expire_uploads, grace=grace)):
        metrics.removed.labels("uploads").inc(len(keys))
        await orphans.remove(keys)


def _is_pending(document: Document) -> bool:
    """Return whether the upload is neither completed nor rejected."""
    return document.status is Status.INITIATED and document.error is None
