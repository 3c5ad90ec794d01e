"""What users do with the files that a document has and had: list, label, keep and remove them."""

from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from app import events
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents import repository
from app.documents.file_versions import sql
from app.documents.file_versions.replacement import Replacement
from app.documents.file_versions.schemas import DocumentFile, DocumentFilePage
from app.documents.service import owned
from app.errors import CurrentFile, NotFound, OnHold
from app.events.catalogue.documents import DocumentFileEdited
from app.files.removal import Removal
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.telemetry import faults, metrics
from app.web import pagination


class FileVersions:
    """Each method but `expire` acts for one owner; another owner's document raises NotFound, and so does a number
    without a file."""

    def __init__(
        self, db: Database, removal: Removal, replacement: Replacement, reserve: Reserve, settings: Settings
    ) -> None:
        self._db = db
        self.removal = removal
        self._replacement = replacement
        self._reserve = reserve
        self._ttl = settings.file_version_ttl

    async def find(self, principal: Principal, document_id: UUID, limit: int, cursor: str | None) -> DocumentFilePage:
        """Return a page of a document's files, the newest first. Raises InvalidCursor."""
        below = pagination.decode(cursor, "files", int).value if cursor else 2**31

        def work(conn: Connection) -> list[DocumentFile]:
            owned(conn, principal.owner_id, document_id)
            return sql.of_document(conn, document_id, min(below, 2**31), limit + 1)

        items, last = pagination.page(await self._db.read(work), limit)
        end = pagination.encode("files", last.number, document_id) if last else None
        return DocumentFilePage(items=items, next_cursor=end)

    async def get(self, principal: Principal, document_id: UUID, number: int) -> DocumentFile:
        """Return one file of a document."""

        def work(conn: Connection) -> DocumentFile:
            owned(conn, principal.owner_id, document_id)
            return _found(conn, document_id, number)

        return await self._db.read(work)

    async def edit(self, principal: Principal, document_id: UUID, number: int, changes: dict[str, Any]) -> DocumentFile:
        """Change what is stated about a file. Raises StorageFull."""
        self._reserve.require()
        values = {name: bool(value) if name == "keep" else value for name, value in changes.items()}

        def work(conn: Connection) -> DocumentFile:
            document = owned(conn, principal.owner_id, document_id)
            if values and number == document.file_number:
                repository.edit_file(conn, document_id, {f"file_{name}": value for name, value in values.items()})
            elif values:
                sql.edit(conn, document_id, number, values)
            file = _found(conn, document_id, number)
            if values:
                event = DocumentFileEdited(number=number, fields=sorted(values))
                events.append(conn, event, user_id=principal.owner_id, document_id=document_id)
            return file

        return await self._db.write(required(principal, work), alone_with=principal.owner_id)

    async def remove(self, principal: Principal, document_id: UUID, number: int) -> list[str]:
        """Delete a previous file with its results; return the keys of what was stored.

        Raises CurrentFile, OnHold.
        """

        def work(conn: Connection) -> list[str]:
            document = owned(conn, principal.owner_id, document_id)
            if sql.previous_number(conn, document, number) is None:
                raise CurrentFile
            keys = self._replacement.remove(conn, document.owner_id, document_id, [number], "deleted")
            if not keys:
                raise OnHold
            return keys

        keys = await self._db.write(required(principal, work), alone_with=principal.owner_id)
        faults.hit("delete.after_commit")
        return keys

    async def expire(self) -> None:
        """Delete the previous files of all that were replaced too long ago, but for those to keep."""
        while True:
            gone, keys = await self._db.write(partial(self._replacement.expire, ttl=self._ttl))
            if gone == 0:
                return
            await self._removed(gone, keys)

    async def prune(self) -> None:
        """Delete the previous files that are too many, but for those to keep. Some stay when their document's file is
        replaced, for a hold or a job."""
        after: UUID | None = UUID(int=0)
        while after:
            gone, keys, after = await self._db.write(partial(self._replacement.prune, after=after))
            await self._removed(gone, keys)

    async def _removed(self, gone: int, keys: list[str]) -> None:
        metrics.removed.labels("files").inc(gone)
        await self.removal.discarded(keys)


def _found(conn: Connection, document_id: UUID, number: int) -> DocumentFile:
    file = sql.one(conn, document_id, number)
    if file is None:
        raise NotFound
    return file
