"""Deleting documents, and taking them back: the trash, what expires, and what is gone for good."""

from collections.abc import Callable, Iterable
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents import repository, trash
from app.documents.lifecycle import Status
from app.documents.schemas import Document
from app.documents.service import owned
from app.errors import DocumentProcessing, DocumentPurged, NotFound, OnHold, PreconditionFailed
from app.files.removal import Removal
from app.settings import Settings
from app.telemetry import faults, metrics

MoreFiles = Callable[[Connection, UUID], list[str]]
"""Returns the keys of what is stored besides a document's file, and goes with it."""


class Deletion:
    """Deletes and restores documents, each method for one owner, and does for all of them what is due."""

    def __init__(self, db: Database, removal: Removal, more_files: MoreFiles, settings: Settings) -> None:
        self._db = db
        self._removal = removal
        self._more_files = more_files
        self._kept = settings.trash_seconds
        self._retention = settings.retention_seconds

    async def delete(
        self,
        principal: Principal,
        document_id: UUID,
        versions: frozenset[int] | None = None,
        *,
        permanent: bool = False,
    ) -> list[str]:
        """Delete a document if it has one of the versions. Unless `permanent`, it is moved to the trash, if there is
        one; one that is in the trash is found only if `permanent`.

        Returns the keys of its files if it is gone for good (see `remove_files`).
        Raises NotFound, PreconditionFailed, OnHold, DocumentProcessing.
        """
        work = partial(self.delete_within, owner_id=principal.owner_id, document_id=document_id, versions=versions)
        deleting = required(principal, partial(work, permanent=permanent))
        keys = await self._db.write(deleting, alone_with=principal.owner_id)
        faults.hit("delete.after_commit")
        return keys

    def delete_within(
        self,
        conn: Connection,
        owner_id: UUID,
        document_id: UUID,
        versions: frozenset[int] | None = None,
        *,
        permanent: bool = False,
    ) -> list[str]:
        """Do what `delete` does, within the caller's transaction."""
        if not permanent and self._kept and trash.put(conn, owner_id, document_id, versions):
            return []
        document = repository.of_any(conn, document_id) if permanent else owned(conn, owner_id, document_id)
        if document is None or document.owner_id != owner_id:
            raise NotFound
        if permanent or not self._kept or document.status is Status.INITIATED:
            more = self._more_files(conn, document_id)
            if key := trash.purge(conn, owner_id, document_id, versions):
                return [key, *more]
        raise _refusal(document, versions)

    async def remove_files(self, keys: Iterable[str]) -> None:
        """Remove the files of deleted documents now, instead of at the next sweep for orphans."""
        await self._removal.discarded(keys)

    async def restore(self, principal: Principal, document_id: UUID) -> Document:
        """Take a document out of the trash. One that is not in it is returned as it is.

        Raises NotFound, DocumentPurged.
        """
        owner_id = principal.owner_id

        def work(conn: Connection) -> Document:
            restored = trash.restore(conn, owner_id, document_id, self._retention)
            document = restored or repository.get(conn, owner_id, document_id)
            if document is None:
                raise DocumentPurged if trash.was_purged(conn, owner_id, document_id) else NotFound
            return document

        return await self._db.write(required(principal, work), alone_with=owner_id)

    async def in_trash(self, principal: Principal, document_id: UUID) -> Document:
        """Return a document that is in the trash. Raises NotFound for any other."""
        document = await self._db.read(partial(repository.of_any, document_id=document_id))
        if document is None or document.owner_id != principal.owner_id or document.deleted_at is None:
            raise NotFound
        return document

    async def empty_trash(self, principal: Principal) -> list[str]:
        """Delete for good what is in the trash now, but for what is on hold. Returns the keys of its files.

        Raises what the database raises; then a part may be gone.
        """
        owner_id, keys = principal.owner_id, list[str]()
        since = None
        while True:
            work = partial(trash.purge_overdue, kept=0, owner_id=owner_id, since=since)
            some, since = await self._db.write(required(principal, work), alone_with=owner_id)
            keys += some
            if since is None:
                return keys

    async def expire(self) -> None:
        """Move to the trash what has expired, by its own `expires_at` or by RETENTION_SECONDS."""
        for expiry in trash.expiries(self._retention):
            since = None
            while moments := await self._db.write(partial(trash.put_expired, expiry=expiry, since=since)):
                metrics.removed.labels("expired").inc(len(moments))
                since = max(moments)

    async def purge_overdue(self) -> None:
        """Delete for good what has been in the trash for TRASH_SECONDS. The sweep for orphans removes what is left."""
        since = None
        while True:
            keys, since = await self._db.write(partial(trash.purge_overdue, kept=self._kept, since=since))
            if since is None:
                return
            metrics.removed.labels("purged").inc(len(keys))
            await self._removal.discarded(keys)


def _refusal(document: Document, versions: frozenset[int] | None) -> Exception:
    """Why a document was not deleted."""
    if versions is not None and document.version not in versions:
        return PreconditionFailed()
    if document.hold is not None:
        return OnHold()
    return DocumentProcessing()
