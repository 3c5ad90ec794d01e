"""What refers to stored files: every row that does, collected in a temporary file, because no index finds them.

A row may be moved while the tables are read, from a document's current file or result to its previous ones. It is
found nevertheless: the table that it comes from is read first.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Row, Select, Table, null, select

from app.check.findings import Finding, Rows, confirmed, walk
from app.database import Database
from app.documents.models import documents, previous_files
from app.files.models import files
from app.processing.models import previous_result_files, previous_results, result_files, results
from app.processing.stages.models import stage_results

_CACHE = -20_000  # KiB of memory, negative by SQLite's habit
_MOST = 500  # parameters of one statement


class Reference(NamedTuple):
    """What refers to a file: a document, a result of it, or what a stage has kept for an account."""

    what: str
    document_id: UUID | None


class _Source(NamedTuple):
    table: Table
    what: str
    document: ColumnElement[Any]

    @property
    def key(self) -> list[Column[Any]]:
        return list(self.table.primary_key)

    @property
    def query(self) -> Select[Any]:
        """Each row that refers to a file, or must, and what is known of that file."""
        there = [files.c.id.label("there"), files.c.discarded_at.is_not(None).label("discarded")]
        query = select(*self.key, self.document.label("of"), self.table.c.file_id, *there).select_from(
            self.table.outerjoin(files, files.c.id == self.table.c.file_id)
        )
        return query if self.table is documents else query.where(self.table.c.file_id.is_not(None))

    def judge(self, rows: Rows) -> list[Finding]:
        return [
            Finding("file-row-missing", f"{self.what} {reason}", row.of)
            for row in rows
            if (reason := _reason(row)) is not None
        ]


def _reason(row: Row[Any]) -> str | None:
    if row.there is None:
        return "has no row in `files`" if row.file_id else "is not known"
    return "was discarded although it is in use" if row.discarded else None


SOURCES = (
    _Source(documents, "the document's file", documents.c.id),
    _Source(previous_files, "a previous file of the document", previous_files.c.document_id),
    _Source(results, "the file of a result", results.c.document_id),
    _Source(previous_results, "the file of a previous result", previous_results.c.document_id),
    _Source(result_files, "a file that belongs to a result", result_files.c.document_id),
    _Source(previous_result_files, "a file that belongs to a previous result", previous_result_files.c.document_id),
    _Source(stage_results, "the file of a stage's result", null()),
)


class References:
    """All references as of one reading, by the id of the file. Use it in a `with` block."""

    def __enter__(self) -> Self:
        self._kept = sqlite3.connect("", check_same_thread=False)  # a file of its own, which goes when it is closed
        self._kept.execute(f"PRAGMA cache_size = {_CACHE}")
        self._kept.execute("PRAGMA journal_mode = OFF")
        self._kept.execute("CREATE TABLE refs (file BLOB PRIMARY KEY, source INTEGER, document BLOB) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    async def read(self, db: Database) -> AsyncIterator[Finding]:
        """Read them all, in place of those read before. Yields references to files that the database does not have."""
        self._kept.execute("DELETE FROM refs")
        for number, source in enumerate(SOURCES):
            async for page, rows in walk(db, source.query, source.key):
                self._add(number, rows)
                for finding in await confirmed(db, page, source.judge, source.judge(rows)):
                    yield finding

    def _add(self, source: int, rows: Rows) -> None:
        known = [(row.file_id.bytes, source, row.of and row.of.bytes) for row in rows if row.file_id]
        self._kept.executemany("INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", known)

    def of(self, file_ids: Iterable[UUID]) -> dict[UUID, Reference]:
        """What refers to these files; at most one reference each."""
        wanted = [each.bytes for each in file_ids]
        found = {}
        for start in range(0, len(wanted), _MOST):
            some = wanted[start : start + _MOST]
            marks = ", ".join("?" * len(some))
            for file, source, document in self._kept.execute(f"SELECT * FROM refs WHERE file IN ({marks})", some):  # noqa: S608 - only question marks
                found[UUID(bytes=file)] = Reference(SOURCES[source].what, document and UUID(bytes=document))
        return found
