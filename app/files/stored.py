"""Reading stored files for clients, and what is said when one is not there as it was stored."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from app.database import Database
from app.errors import FileDamaged, FileMissing, NotFound
from app.files import repository
from app.storage.base import CHUNK, Storage

log = structlog.get_logger()


class Keyed(Protocol):
    """What says where the bytes of a file are."""

    @property
    def key(self) -> str:
        """In the storage."""


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """Reads files that were in use a moment ago."""

    db: Database
    storage: Storage

    async def read(self, file: Keyed, start: int, length: int, *, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        """Yield so many bytes of a file, at most `chunk` at once.

        Raises FileMissing, FileDamaged if it ends too early, StorageUnavailable, and NotFound if it was deleted since.
        """
        left = length
        try:
            async for piece in self.storage.read(file.key, start, length, chunk=chunk):
                left -= len(piece)
                yield piece
        except NotFound:
            await self._require_deleted(file)
            raise
        if left:
            raise damaged(file)

    @asynccontextmanager
    async def copy(self, file: Keyed) -> AsyncIterator[Path]:
        """Yield where a file can be read on this machine, inside the block. Raises FileMissing, StorageUnavailable,
        StorageFull, and NotFound if it was deleted since."""
        try:
            async with self.storage.local_copy(file.key) as path:
                yield path.absolute()  # DATA_DIR may be relative, and a confined child is elsewhere
        except NotFound:
            await self._require_deleted(file)
            raise

    async def _require_deleted(self, file: Keyed) -> None:
        known = await self.db.read(partial(repository.known, keys=[file.key]))
        if known.get(file.key) is False:
            log.error("storage.missing", key=file.key)
            raise FileMissing from None


def damaged(file: Keyed) -> FileDamaged:
    """Log that a file is not as it was stored, and return the error to raise."""
    log.error("storage.damaged", key=file.key)
    return FileDamaged()
