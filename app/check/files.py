"""Compares the rows of files with a listing of the storage: both in the order of the keys, in constant memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Select, select

from app.check.findings import Finding, rows_of, walk
from app.check.references import Reference, References
from app.database import Database, now
from app.errors import NotFound, StorageUnavailable
from app.files.models import files, is_own, key_of
from app.storage.base import FOLDER, Listed, Storage

MISSING = "file-missing"
SIZE = "size-differs"
UNREFERENCED = "file-unreferenced"

_SUSPECTS = 200  # that are looked at again at once
_AT_ONCE = 16  # of them
_SWEEPS = 3  # after which a discarded file must have been removed


class Row(NamedTuple):
    """A row of `files`. `discarded`: None while it is in use, False while it is reserved. `overdue`: it was discarded
    so long ago that a sweep must have removed the file."""

    id: UUID
    key: str
    size: int
    sha256: str | None
    discarded: bool | None
    overdue: bool | None

    @property
    def stored(self) -> bool:
        """Whether its object must be there."""
        return self.discarded is None and self.sha256 is not None


@dataclass(frozen=True, slots=True)
class Known:
    """A row, and what refers to it."""

    row: Row
    reference: Reference | None


class Suspect(NamedTuple):
    """What looked wrong at the first look: the `row` that was there, if any, and the object, which was `missing`,
    `there`, or of an`other` size."""

    finding: Finding
    row: Row | None
    object: Literal["missing", "there", "other"]

    @property
    def key(self) -> str:
        """The file's key."""
        assert self.finding.file
        return self.finding.file


@dataclass(slots=True)
class FileCheck:
    """`grace`: seconds for which a file may be there before its row is.

    Counts the files that must be stored, and the objects of those that are.
    """

    db: Database
    storage: Storage
    references: References
    grace: float
    rows: int = 0
    objects: int = 0
    _unreferenced: list[UUID] = field(default_factory=list)

    async def run(self) -> AsyncIterator[Finding]:
        """Yield what is lost, left behind, or of another size. Raises StorageUnavailable, DatabaseUnavailable."""
        suspects = list[Suspect]()
        async for known, listed in self._pairs():
            if listed and not _is_placed(listed):
                if listed.age > self.grace:
                    yield _misplaced(listed)
                continue
            if known and known.row.stored:
                self.rows += 1
                self.objects += listed is not None
            if suspect := self._judge(known, listed):
                suspects.append(suspect)
            if len(suspects) >= _SUSPECTS:
                for finding in await self._confirmed(suspects):
                    yield finding
                suspects = []
        for finding in await self._confirmed(suspects):
            yield finding
        async for finding in self._unreferenced_still():
            yield finding

    def _judge(self, known: Known | None, listed: Listed | None) -> Suspect | None:
        if known is None:
            assert listed
            unknown = Finding("file-unknown", "it is stored, and the database knows nothing of it", file=listed.key)
            return Suspect(unknown, None, "there") if listed.age > self.grace else None
        row, reference = known.row, known.reference
        if row.discarded is None and reference is None:
            self._unreferenced.append(row.id)
            return None
        what, document_id = reference or ("the file", None)
        if row.stored and listed is None:
            missing = Finding(MISSING, f"{what} is not in the storage; {_sha256(row)}", document_id, file=row.key)
            return Suspect(missing, row, "missing")
        if row.stored and listed and listed.size != row.size:
            sizes = f"{what} has {listed.size} bytes, and was stored with {row.size}; {_sha256(row)}"
            return Suspect(Finding(SIZE, sizes, document_id, file=row.key), row, "other")
        if row.overdue and listed and listed.age > self.grace:
            discarded = Finding("file-discarded", "it was discarded, and should have been removed", file=row.key)
            return Suspect(discarded, row, "there")
        return None

    async def _pairs(self) -> AsyncIterator[tuple[Known | None, Listed | None]]:
        """Rows and objects by the same key, or one of them alone."""
        rows, listing = self._rows(), self._listing()
        known, listed = await anext(rows, None), await anext(listing, None)
        while known or listed:
            if listed and not _is_placed(listed):
                yield None, listed
                listed = await anext(listing, None)
            elif listed is None or (known and known.row.key < listed.key):
                yield known, None
                known = await anext(rows, None)
            elif known is None or listed.key < known.row.key:
                yield None, listed
                listed = await anext(listing, None)
            else:
                yield known, listed
                known, listed = await anext(rows, None), await anext(listing, None)

    async def _rows(self) -> AsyncIterator[Known]:
        """In the order of their ids, of which the keys are made."""
        async for _, page in walk(self.db, self._query, [files.c.id]):
            references = self.references.of(row.id for row in page)
            for row in page:
                yield Known(Row._make(row), references.get(row.id))

    async def _listing(self) -> AsyncIterator[Listed]:
        last = ""
        async for page in self.storage.listing():
            for listed in page:
                if _is_placed(listed):
                    if listed.key <= last:
                        raise StorageUnavailable("the storage does not list its files in the order of their keys")
                    last = listed.key
                if not listed.key.endswith("/"):  # a folder, which a console has made in a bucket
                    yield listed

    async def _confirmed(self, suspects: list[Suspect]) -> list[Finding]:
        """Those that are still as they were: first the objects are looked at again, then the rows.

        Whoever removes a file has discarded its row before, and whoever adds a row has stored its file before.
        """
        still = [each for each in await _still_there(self.storage, suspects) if each]
        rows = {row.key: row for row in await self._by_key(each.key for each in still)}
        return [each.finding for each in still if _same(each.row, rows.get(each.key))]

    async def _by_key(self, keys: Iterable[str]) -> list[Row]:
        query = self._query.where(files.c.key.in_(list(keys)))
        return [Row._make(row) for row in await self.db.read(partial(rows_of, query=query))]

    @property
    def _query(self) -> Select[Any]:
        """Rows as they are read."""
        flags = {
            "discarded": files.c.discarded_at <= now(),
            "overdue": files.c.discarded_at <= now(-_SWEEPS * self.grace),
        }
        columns = (files.c.id, files.c.key, files.c.size, files.c.sha256)
        return select(*columns, *(value.label(name) for name, value in flags.items()))

    async def _unreferenced_still(self) -> AsyncIterator[Finding]:
        """Files that nothing referred to, and that nothing refers to in a second reading of all references."""
        if not self._unreferenced:
            return
        async for _ in self.references.read(self.db):
            pass
        for start in range(0, len(self._unreferenced), _SUSPECTS):
            some = self._unreferenced[start : start + _SUSPECTS]
            referred = self.references.of(some)
            for row in await self._by_key(key_of(each) for each in some if each not in referred):
                if row.discarded is None:
                    yield Finding(UNREFERENCED, "it is stored, and nothing refers to it", file=row.key)


def _is_placed(listed: Listed) -> bool:
    return is_own(listed.key) and not listed.place


def _misplaced(listed: Listed) -> Finding:
    what = "no file of the service lies there: it is left alone"
    if is_own(f"{FOLDER}/{listed.place.rpartition('/')[2]}"):
        what = f"a file of this name belongs at {listed.place}, and is not seen there: it is left alone"
    return Finding("file-misplaced", what, file=_printable(listed.key))


def _printable(name: str) -> str:
    """A name that anybody may have given to a file, for a line of text."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)


def _sha256(row: Row) -> str:
    """By which it is found in a backup."""
    return f"its SHA-256 is {row.sha256}"


def _same(before: Row | None, after: Row | None) -> bool:
    """Whether a row says the same of its object as it did."""
    if before is None or after is None:
        return before is after
    return (before.stored, before.overdue, before.size) == (after.stored, after.overdue, after.size)


async def _still_there(storage: Storage, suspects: list[Suspect]) -> list[Suspect | None]:
    """Each of the suspects whose object is still there, or still missing, or still of another size; or None."""
    permits = asyncio.Semaphore(_AT_ONCE)

    async def look(suspect: Suspect) -> Suspect | None:
        async with permits:
            size = suspect.row.size if suspect.row and suspect.object != "there" else None
            found = await state_of(storage, suspect.key, size)
        return suspect if found == suspect.object else None

    return await asyncio.gather(*map(look, suspects))


async def state_of(storage: Storage, key: str, size: int | None) -> str:
    """Whether an object is `missing`, is `there` with so many bytes (None: with any), or has an`other` number."""
    start = max(0, (size or 0) - 1)
    try:
        found = sum([len(chunk) async for chunk in storage.read(key, start, 2)])
    except NotFound:
        return "missing"
    return "there" if size is None or found == min(1, size) else "other"
