"""Which files there are, in a temporary database on disk: memory does not grow with them, and nothing stays there."""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

from app.files.models import is_own
from app.storage.base import Stored

_BATCH = 200  # files
_HELD = "JOIN held USING (sha256, size)"
_SCHEMA = """
PRAGMA journal_mode=OFF;
CREATE TABLE files (key TEXT PRIMARY KEY, sha256 TEXT, size INTEGER) WITHOUT ROWID;
CREATE TABLE held (sha256 TEXT PRIMARY KEY, size INTEGER, copied INTEGER) WITHOUT ROWID;
CREATE TABLE stored (key TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
"""


class Listed(NamedTuple):
    """A file of the service: its key in the storage, SHA-256 in hex, and size in bytes."""

    key: str
    sha256: str
    size: int

    @property
    def content(self) -> Stored:
        return Stored(self.size, self.sha256)


class Plan:
    """The files of a backup, the contents that are held somewhere, and what a storage lists. Close it after use."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def add(self, listed: Iterable[Listed]) -> None:
        self._insert("files", listed)

    def hold(self, contents: Iterable[tuple[str, int]], *, copied: bool = False) -> None:
        """Record contents that are held: SHA-256 and size of each; and whether they were `copied` just now."""
        self._insert("held", ((*content, copied) for content in contents))

    def holds(self, sha256: str, size: int) -> bool:
        query = "SELECT 1 FROM held WHERE sha256 = ? AND size = ?"
        return self._db.execute(query, (sha256, size)).fetchone() is not None

    def copied(self, sha256: str) -> bool:
        """Whether a content is held since it was copied."""
        return self._db.execute("SELECT 1 FROM held WHERE sha256 = ? AND copied", (sha256,)).fetchone() is not None

    def see(self, stored: Iterable[tuple[str, int]]) -> None:
        """Record what a storage has: key and size of each."""
        self._insert("stored", stored)

    def sees(self, key: str, size: int) -> bool:
        query = "SELECT 1 FROM stored WHERE key = ? AND size = ?"
        return self._db.execute(query, (key, size)).fetchone() is not None

    def batches(self, *, held: bool = False) -> Iterator[list[Listed]]:
        """Yield the files in batches, in the order of their keys: all, or those whose content is `held`."""
        last = ""
        query = f"SELECT key, sha256, size FROM files {_HELD if held else ''} WHERE key > ? ORDER BY key LIMIT {_BATCH}"  # noqa: S608 - our own constants
        while batch := [Listed(*row) for row in self._db.execute(query, (last,))]:
            yield batch
            last = batch[-1].key

    def totals(self) -> tuple[int, int, int]:
        """How many files there are whose content is held, how many bytes they have, and how many others there are."""
        query = f"SELECT count(*), coalesce(sum(size), 0), (SELECT count(*) FROM files) FROM files {_HELD}"  # noqa: S608 - as above
        files, size, listed = self._db.execute(query).fetchone()
        return files, size, listed - files

    def _insert(self, table: str, rows: Iterable[tuple[object, ...]]) -> None:
        rows = list(rows)
        if rows:
            self._db.execute("BEGIN")
            values = ",".join("?" * len(rows[0]))
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({values})", rows)  # noqa: S608 - our own names
            self._db.execute("COMMIT")


async def lines(plan: Plan) -> AsyncIterator[bytes]:
    """Yield the files whose content is held as NDJSON."""
    for batch in plan.batches(held=True):
        yield b"".join(json.dumps(each).encode() + b"\n" for each in batch)


async def parsed(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Listed]]:
    """Yield the files in NDJSON, in batches. Raises ValueError for anything else."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield [_listed(line) for line in whole]
    if rest:
        raise ValueError("the last line is not complete")


def _listed(line: bytes) -> Listed:
    match json.loads(line):
        case [str(key), str(sha256), int(size)] if is_own(key):  # or it could be any path
            return Listed(key, sha256, size)
    raise ValueError("not a file")
