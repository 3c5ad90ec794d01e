"""Removing files that no document has: of uploads that died before their commit, and of documents that were deleted.

A `document.deleted` event identifies the file of a deleted document. Any other file without a document is unknown to
this database. To a wrong database all files are unknown: if there are many such files, none is removed.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.database import Database
from app.documents import repository
from app.documents.claim import Claim
from app.documents.service import document_of, storage_key
from app.errors import AppError
from app.storage.base import Storage
from app.upkeep import Skipped

log = structlog.get_logger()

MAX_UNKNOWN = 100  # unknown files that a sweep removes
ALWAYS_ALLOWED = 10  # unknown files that it removes whatever their share: a crash leaves some in a small storage, too
MAX_UNKNOWN_SHARE = 0.01  # of all files that are older than the grace
AT_ONCE = 16  # files


@dataclass(slots=True)
class Found:
    """Files older than the grace, and those of them that no document of this database has or ever had."""

    files: int = 0
    unknown: int = 0

    @property
    def suspicious(self) -> bool:
        return self.unknown > MAX_UNKNOWN or (
            self.unknown > ALWAYS_ALLOWED and self.unknown > MAX_UNKNOWN_SHARE * self.files
        )

    def __str__(self) -> str:
        return f"{self.unknown} of {self.files} files belong to no document that this database has or once contained"


@dataclass(frozen=True, slots=True)
class Orphans:
    """`grace`: seconds for which a file may be there before its document is."""

    db: Database
    storage: Storage
    claim: Claim
    grace: float

    async def sweep(self) -> None:
        """Remove orphans. Raises Skipped if that would be too many, or if the files are another database's."""
        await self.claim.confirm()
        found, unknown = Found(), set[UUID]()
        async for ids, deleted, strangers in self._pages():
            await self._remove(deleted)
            found.files += len(ids)
            found.unknown += len(strangers)
            if found.unknown <= MAX_UNKNOWN:
                unknown |= strangers
        if found.suspicious:
            log.warning("storage.sweep_stopped", files=found.files, without_document=found.unknown)
            raise Skipped(f"{found}: none of them was removed; to remove them, run: python -m app sweep --yes")
        await self._remove(unknown)

    async def count(self) -> Found:
        """What a sweep would find."""
        found = Found()
        async for ids, _, unknown in self._pages():
            found.files += len(ids)
            found.unknown += len(unknown)
        return found

    async def remove_all(self) -> None:
        """Remove orphans, however many. Raises Skipped if the files are another database's."""
        await self.claim.confirm()
        async for _, deleted, unknown in self._pages():
            await self._remove(deleted | unknown)

    async def _pages(self) -> AsyncIterator[tuple[list[UUID], set[UUID], set[UUID]]]:
        """Documents by the keys of their files; those of them that were deleted here; those unknown here."""
        async for keys in self.storage.stale(self.grace):
            ids = [document_id for key in keys if (document_id := document_of(key))]
            yield ids, *await self.db.read(partial(_without_document, ids=ids))

    async def _remove(self, document_ids: Collection[UUID]) -> None:
        if document_ids:
            await self.claim.confirm()  # to list what is there may have taken hours
            await remove_files(self.storage, document_ids)
        for document_id in document_ids:
            log.info("storage.orphan_removed", document_id=str(document_id))


async def expire_uploads(db: Database, storage: Storage, claim: Claim, *, grace: float) -> None:
    """Delete documents whose direct upload was never completed, and what was sent of them. Raises Skipped if the files
    are another database's."""
    await claim.confirm()
    while expired := await db.write(partial(repository.expire, grace=grace)):
        await remove_files(storage, expired)


async def remove_files(storage: Storage, document_ids: Collection[UUID]) -> None:
    """Remove the files of documents that are gone, some at once. One that is not there is no error.

    Raises StorageUnavailable.
    """
    left = iter(document_ids)

    async def work() -> None:
        for document_id in left:
            await storage.delete(storage_key(document_id))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(AT_ONCE, len(document_ids))):
                tasks.create_task(work())
    except* AppError as group:
        raise group.exceptions[0] from None


def _without_document(conn: Connection, ids: list[UUID]) -> tuple[set[UUID], set[UUID]]:
    orphans = repository.without_document(conn, ids)
    deleted = repository.deleted(conn, list(orphans)) if orphans else set()
    return deleted, orphans - deleted
