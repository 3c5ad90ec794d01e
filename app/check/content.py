"""Reads stored files back and compares their SHA-256, at a bounded rate."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from app.check.findings import Finding, walk
from app.check.references import Reference, References
from app.database import Database
from app.errors import NotFound
from app.files.models import files
from app.storage.base import Storage

CONTENT = "content-differs"
CHUNK = 128 * 1024  # bytes, which are hashed in a tenth of a millisecond: the event loop serves meanwhile

Kind = Literal["missing", "size", "content"]

STORED = select(files.c.id, files.c.key, files.c.size, files.c.sha256).where(
    files.c.sha256.is_not(None), files.c.discarded_at.is_(None)
)


class Stored(NamedTuple):
    """A file that must be in the storage, with this content."""

    id: UUID
    key: str
    size: int
    sha256: str


class Rate:
    """Lets no more than so many bytes a second pass; 0: any number."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def passed(self, count: int) -> None:
        """Wait until so many bytes may have passed."""
        if self._rate:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            await asyncio.sleep(self._free_at - time.monotonic())


@dataclass(slots=True)
class Reader:
    """Reads files back. Counts the bytes."""

    db: Database
    storage: Storage
    rate: Rate
    bytes: int = 0

    async def wrong_with(self, file: Stored) -> Kind | None:
        """What is wrong with a file, if it is found twice, and the file is still in use. Raises StorageUnavailable."""
        kind = await self._compare(file)
        if kind is None or await self._compare(file) != kind:
            return None
        return kind if await self.db.read(lambda conn: _still(conn, file)) else None

    async def _compare(self, file: Stored) -> Kind | None:
        sha256, size = hashlib.sha256(), 0
        try:
            # One byte past the expected size, so that a longer file differs.
            async for chunk in self.storage.read(file.key, 0, file.size + 1, chunk=CHUNK):
                sha256.update(chunk)
                size += len(chunk)
                await self.rate.passed(len(chunk))
        except NotFound:
            return "missing"
        finally:
            self.bytes += size
        if size != file.size:
            return "size"
        return None if sha256.hexdigest() == file.sha256 else "content"


async def differing(reader: Reader, references: References) -> AsyncIterator[Finding]:
    """Yield files whose content is another than was stored. Those that are missing, or have another size, the listing
    has shown."""
    async for _, rows in walk(reader.db, STORED, [files.c.id]):
        for file in (Stored._make(row) for row in rows):
            if await reader.wrong_with(file) == "content":
                reference = references.of([file.id]).get(file.id, Reference("the file", None))
                what = f"{reference.what} is not as it was stored; its SHA-256 was {file.sha256}"
                yield Finding(CONTENT, what, reference.document_id, file=file.key)


def _still(conn: Connection, file: Stored) -> bool:
    same = (files.c.id == file.id, files.c.sha256 == file.sha256)
    return conn.execute(STORED.where(*same)).one_or_none() is not None
