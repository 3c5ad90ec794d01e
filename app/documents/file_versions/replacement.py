"""What a document's file is replaced by, in the caller's transaction: the file before is kept with its results."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection

from app import events
from app.database import Retry, time_of
from app.documents import repository
from app.documents.file_versions import sql
from app.documents.lifecycle import Status
from app.documents.schemas import Document
from app.events.catalogue.documents import DocumentFileReplaced
from app.files.models import File
from app.files.names import renamed, with_extension
from app.telemetry import context


class Results(Protocol):
    """What was made of files, as far as it goes where its file goes."""

    def put_aside(self, conn: Connection, document_id: UUID) -> None:
        """Make the results of a document's current file those of a previous one, whose row is there."""

    def keys(self, conn: Connection, document_id: UUID, numbers: Collection[int] | None = None) -> list[str]:
        """Return the keys of a document's previous files that have these numbers, and of what was made of them."""


class Replacement:
    """Replaces files, and removes those that were. `most`: previous files that a document keeps."""

    def __init__(self, results: Results, most: int) -> None:
        self._results = results
        self._most = most

    def put(
        self, conn: Connection, document: Document, file: File, filename: str, *, restored: int | None = None
    ) -> tuple[Document, list[str]]:
        """Give a document another file, whose row is there. Without a filename, it keeps its own.

        `restored`: the number of the file that this one is a copy of. Returns the document, and the keys of previous
        files that are too many now. Raises Retry when another transaction moved the document first.
        """
        sql.put_aside(conn, document.id)
        self._results.put_aside(conn, document.id)
        facts = _facts(conn, document, file, filename)
        moved = repository.move(conn, document.id, document.status, Status.UPLOADED, facts=facts)
        if moved is None:
            raise Retry
        about = {name: getattr(file, name) for name in ("size", "sha256", "content_type")}
        event = DocumentFileReplaced(number=moved.file_number, restored=restored, **about)
        events.append(conn, event, user_id=document.owner_id, document_id=document.id)
        too_many = sql.beyond(conn, document.id, self._most)
        return moved, self.remove(conn, document.owner_id, document.id, too_many, "too-many")

    def remove(
        self, conn: Connection, owner_id: UUID, document_id: UUID, numbers: Collection[int], reason: sql.Reason
    ) -> list[str]:
        """Delete previous files with their results, unless the document is on hold. Returns the keys of what was stored
        of them; none: nothing was deleted."""
        if not numbers:
            return []
        keys = self._results.keys(conn, document_id, numbers)
        return keys if sql.remove(conn, owner_id, document_id, numbers, reason) else []

    def expire(self, conn: Connection, ttl: float) -> tuple[int, list[str]]:
        """Delete a batch of the previous files that were replaced at least `ttl` seconds ago.

        Returns how many, and the keys of what was stored of them; none: no more are left.
        """
        rows, keys = sql.overdue(conn, ttl), list[str]()
        numbers = defaultdict[tuple[UUID, UUID], list[int]](list)
        for row in rows:
            numbers[row.owner_id, row.document_id].append(row.number)
        for of_document, gone in numbers.items():
            keys += self.remove(conn, *of_document, gone, "expired")
        return len(rows), keys

    def prune(self, conn: Connection, after: UUID) -> tuple[int, list[str], UUID | None]:
        """Delete a batch of the previous files that are too many, of documents whose ids come after this one.

        Returns how many, the keys of what was stored of them, and the id after which to go on; None: no more are left.
        """
        found, gone, keys = sql.with_more(conn, self._most, after), 0, list[str]()
        for row in found:
            numbers = sql.beyond(conn, row.document_id, self._most)[: sql.BATCH - gone]
            keys += self.remove(conn, row.owner_id, row.document_id, numbers, "too-many")
            gone += len(numbers)
            if gone == sql.BATCH:
                break  # more of this document may be left
            after = row.document_id
        return gone, keys, after if found else None


def _facts(conn: Connection, document: Document, file: File, filename: str) -> dict[str, Any]:
    """The columns of a document that change with its file."""
    own = renamed(document.filename, document.content_type, file.content_type)
    return {
        "file_id": file.id,
        "filename": with_extension(filename, file.content_type) if filename else own,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
        "file_number": document.file_number + 1,
        "file_label": None,
        "file_keep": False,
        "file_stored_at": time_of(conn),
        "file_stored_by": context.actor.get(),
    }
