"""Another file for a document: sent with a request, sent by a direct upload before, or one that it had once."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import idempotency
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents import repository, trash
from app.documents.file_versions import sql
from app.documents.file_versions.replacement import Replacement
from app.documents.intake import Intake, Pending
from app.documents.lifecycle import REPLACEABLE, Status
from app.documents.schemas import Document
from app.documents.service import LARGE, owned, owned_with_file
from app.errors import (
    DocumentProcessing,
    MalformedMultipart,
    OnHold,
    PreconditionFailed,
    Sha256Mismatch,
    SizeMismatch,
    UploadIncomplete,
    ValidationFailed,
)
from app.files import repository as files
from app.files.models import File, key_of
from app.files.multipart import OVERHEAD
from app.files.receive import Batch, Receiver, Sent, compare
from app.files.stored import StoredFiles, damaged
from app.idempotency import KeyedRequest, StoredResponse
from app.quotas import Quotas
from app.settings import Settings
from app.telemetry import faults

Versions = frozenset[int] | None
"""The versions of a document that may be changed; None: any."""


class Replaced(NamedTuple):
    """The answer to a replacement, and the keys of files that are to be removed because of it."""

    answer: StoredResponse
    keys: list[str]


class _Stored(NamedTuple):
    """A file that was stored for a document. `restored`: the number of what it is a copy of."""

    file: File
    filename: str
    restored: int | None = None


class _Change(NamedTuple):
    """What a unit has made of a document. `recorded`: it has the file that was stored for it."""

    document: Document
    keys: list[str]
    recorded: bool


class ReplaceService:
    """Each method acts for one owner; another owner's document raises NotFound, and so does a number without a file."""

    def __init__(
        self,
        db: Database,
        stored: StoredFiles,
        receiver: Receiver,
        intake: Intake,
        replacement: Replacement,
        *,
        quotas: Quotas,
        settings: Settings,
    ) -> None:
        self._db = db
        self._stored = stored
        self._receiver = receiver
        self._intake = intake
        self.removal = intake.removal
        self._replacement = replacement
        self._quotas = quotas
        self._settings = settings
        self.max_upload_bytes = settings.max_upload_bytes

    async def receive(
        self,
        principal: Principal,
        document_id: UUID,
        versions: Versions,
        sent: Sent,
        stream: AsyncIterator[bytes],
        *,
        key: str | None,
        declared: int,
    ) -> Replaced:
        """Receive another file for a document that has one of the versions. The one that it has already changes
        nothing. `declared` is the Content-Length, or 0.

        Raises PreconditionFailed, UploadIncomplete, DocumentProcessing, and of what the upload of a document raises
        that of its file and its key.
        """
        owner_id = principal.owner_id
        async with self._intake.in_progress.hold(owner_id, key):
            await self._refuse_in_vain(owner_id, document_id, versions, declared - OVERHEAD, key)
            file, _ = await self._receiver.file(owner_id, sent, stream, partial(_require_no_more, sent))
            request = {"filename": sent.filename, "sha256": file.sha256}
            stored = _Stored(file, sent.filename)
            keyed = self._keyed(principal, document_id, key, request)
            return await self._record(principal, document_id, versions, stored, keyed)

    async def adopt(
        self, principal: Principal, document_id: UUID, versions: Versions, other_id: UUID, *, key: str | None
    ) -> Replaced:
        """Give a document that has one of the versions the file of another one, which goes away.

        Raises PreconditionFailed, UploadIncomplete, DocumentProcessing, OnHold, IdempotencyKeyReused, and
        ValidationFailed unless the other one came by a direct upload, and nothing was done with it since.
        """
        self._quotas.reserve.require()

        def change(conn: Connection, document: Document) -> _Change:
            _require_replaceable(document, versions)
            other, file = _only_sent(conn, document, other_id)
            if file.sha256 == document.sha256:
                changed, keys = document, files.discard(conn, [file.id])
            else:
                changed, keys = self._replacement.put(conn, document, file, other.filename)
            if not trash.forget(conn, document.owner_id, other_id):
                raise OnHold("The document of the direct upload is on hold.")
            return _Change(changed, keys, recorded=True)

        keyed = self._keyed(principal, document_id, key, {"document_id": str(other_id)})
        replaced, _ = await self._write(principal, document_id, change, keyed)
        return replaced

    async def restore(self, principal: Principal, document_id: UUID, versions: Versions, number: int) -> Replaced:
        """Give a document a copy of a file that it had before; if it has such a file now, nothing changes.

        Raises PreconditionFailed, UploadIncomplete, DocumentProcessing, StorageQuotaExceeded, TooBusy, StorageFull,
        Unavailable, FileMissing, FileDamaged.
        """

        def find(conn: Connection) -> tuple[Document, File, str]:
            document = owned(conn, principal.owner_id, document_id)
            _require_replaceable(document, versions)
            named, file = owned_with_file(conn, principal.owner_id, document_id, number)
            return document, file, named.filename

        document, file, filename = await self._db.read(find)
        if file.sha256 == document.sha256:
            return Replaced(_answer(document), [])
        copy = await self._copy(principal.owner_id, file)
        stored = _Stored(copy, filename, restored=number)
        return await self._record(principal, document_id, versions, stored, None)

    async def _refuse_in_vain(
        self, owner_id: UUID, document_id: UUID, versions: Versions, size: int, key: str | None
    ) -> None:
        """Raise before a body arrives what will be raised afterwards. A replay is not refused."""

        def work(conn: Connection) -> None:
            _require_replaceable(owned(conn, owner_id, document_id), versions)
            if size > LARGE:
                self._quotas.check_bytes(conn, owner_id, size)

        await self._intake.refuse_in_vain(owner_id, key, work)

    async def _copy(self, owner_id: UUID, file: File) -> File:
        """Store the file once more, under an id of its own. Raises what `receiving` and reading raise."""
        file_id, stream = uuid7(), self._stored.read(file, 0, file.size)
        async with self._receiver.receiving(owner_id, key_of(file_id), Batch(), stream) as staged:
            try:
                compare(file, await staged.received())
            except (SizeMismatch, Sha256Mismatch):
                raise damaged(file) from None
            await staged.commit()
        faults.hit("replace.after_copy")
        return File(file_id, key_of(file_id), file.content_type, file.size, file.sha256)

    def _put(
        self, conn: Connection, document: Document, versions: Versions, stored: _Stored, pending: Pending
    ) -> _Change:
        """Give a document the file, unless it has that already."""
        pending.require()
        _require_replaceable(document, versions)
        sql.previous_number(conn, document, stored.restored)  # which may have been deleted meanwhile
        if stored.file.sha256 == document.sha256:
            return _Change(document, [], recorded=False)
        files.add(conn, stored.file)
        changed, keys = self._replacement.put(conn, document, stored.file, stored.filename, restored=stored.restored)
        self._quotas.check_bytes(conn, document.owner_id)
        return _Change(changed, keys, recorded=True)

    async def _record(
        self, principal: Principal, document_id: UUID, versions: Versions, stored: _Stored, keyed: KeyedRequest | None
    ) -> Replaced:
        """Commit that the document has the file. Removes it again if the request is refused, or changes nothing."""
        async with self._intake.recording(stored.file) as pending:
            change = partial(self._put, versions=versions, stored=stored, pending=pending)
            replaced, pending.needed = await self._write(principal, document_id, change, keyed)
        return replaced

    async def _write(
        self,
        principal: Principal,
        document_id: UUID,
        change: Callable[[Connection, Document], _Change],
        keyed: KeyedRequest | None,
    ) -> tuple[Replaced, bool]:
        """Commit a change, or replay it. Returns the answer, and whether the file is the document's now."""
        done: _Change | None = None

        def unit(conn: Connection) -> StoredResponse:
            nonlocal done
            done = None
            # Before a replay: it may be gone.
            document = owned(conn, principal.owner_id, document_id, locked=True)

            def work(conn: Connection) -> StoredResponse:
                nonlocal done
                done = change(conn, document)
                faults.hit("replace.in_transaction")
                return _answer(done.document)

            return idempotency.once(conn, keyed, work)

        answer = await self._db.write(required(principal, unit), alone_with=principal.owner_id)
        faults.hit("replace.after_commit")
        return Replaced(answer, done.keys if done else []), bool(done and done.recorded)

    def _keyed(self, principal: Principal, document_id: UUID, key: str | None, request: Any) -> KeyedRequest | None:
        path, ttl = f"/documents/{document_id}/content", self._settings.idempotency_ttl
        return idempotency.keyed(principal.owner_id, key, ttl, "PUT", path, request)


def _require_replaceable(document: Document, versions: Versions) -> None:
    """Raise PreconditionFailed, UploadIncomplete or DocumentProcessing if the document cannot have another file now."""
    if versions is not None and document.version not in versions:
        raise PreconditionFailed
    if document.status not in REPLACEABLE:
        raise UploadIncomplete if document.status is Status.INITIATED else DocumentProcessing


def _only_sent(conn: Connection, document: Document, other_id: UUID) -> tuple[Document, File]:
    """Return another document, which nothing was done with since its direct upload was completed, and its file. Raises
    ValidationFailed, UploadIncomplete."""
    other = repository.get(conn, document.owner_id, other_id, locked=True)
    if other is None:
        raise _refusal("There is no such document.")
    if other.id == document.id:
        raise _refusal("It is the document itself.")
    if other.status is Status.INITIATED:
        raise UploadIncomplete("The upload that is named is not completed.")
    directly, processed = sql.way_and_use(conn, other_id)
    if not directly:
        raise _refusal("It did not come by a direct upload.")
    if other.file_number > 1:
        raise _refusal("Its own file was replaced already.")
    if processed:
        raise _refusal("It was processed already.")
    return other, repository.file_of(conn, other_id)


def _refusal(detail: str) -> ValidationFailed:
    return ValidationFailed(detail, pointer="/document_id")


def _require_no_more(sent: Sent) -> None:
    """Raise MalformedMultipart if there is more than a file, and what else is wrong with the whole."""
    if sent.finish():
        raise MalformedMultipart("Only the part `file` is expected.")


def _answer(document: Document) -> StoredResponse:
    return StoredResponse(200, document.model_dump_json().encode(), f"/documents/{document.id}", document.id)
