"""Removing files that nothing refers to: those that were discarded, and those of uploads that died before their commit.

A discarded file has a row that says so. One without a row is unknown to this database. To a wrong database all files
are unknown: if there are many such files, none is removed.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from functools import partial

import structlog

from app.database import Database
from app.errors import AppError
from app.files import repository
from app.files.claim import Claim
from app.files.models import is_own
from app.storage.base import Storage
from app.telemetry import metrics
from app.upkeep import Skipped

log = structlog.get_logger()

MAX_UNKNOWN = 100  # unknown files that a sweep removes
ALWAYS_ALLOWED = 10  # unknown files that it removes whatever their share: a crash leaves some in a small storage, too
MAX_UNKNOWN_SHARE = 0.01  # of all files that are older than the grace
AT_ONCE = 16  # files


@dataclass(slots=True)
class Found:
    """Files older than the grace, and how many of them are unknown to this database."""

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
    """`grace`: seconds for which a file may be there before its row is."""

    db: Database
    storage: Storage
    claim: Claim
    grace: float

    async def sweep(self) -> None:
        """Remove orphans. Raises Skipped if that would be too many, or if the files are another database's."""
        await self.claim.confirm()
        found, few = Found(), list[str]()
        async for keys, discarded, unknown in self._pages():
            await self._remove(discarded)
            found.files += len(keys)
            found.unknown += len(unknown)
            if found.unknown <= MAX_UNKNOWN:
                few += unknown
        if found.suspicious:
            log.warning("storage.sweep_stopped", files=found.files, without_document=found.unknown)
            raise Skipped(f"{found}: none of them was removed; to remove them, run: python -m app sweep --yes")
        await self._remove(few)

    async def count(self) -> Found:
        """What a sweep would find."""
        found = Found()
        async for keys, _, unknown in self._pages():
            found.files += len(keys)
            found.unknown += len(unknown)
        return found

    async def remove_all(self) -> None:
        """Remove orphans, however many. Raises Skipped if the files are another database's."""
        await self.claim.confirm()
        async for _, discarded, unknown in self._pages():
            await self._remove(discarded + unknown)

    async def remove(self, keys: Collection[str]) -> None:
        """Remove files that were discarded, some at once. One that is not there is no error.

        Raises Skipped if they may be another database's, StorageUnavailable.
        """
        await self.claim.confirm()
        left = iter(keys)

        async def work() -> None:
            for key in left:
                await self.storage.delete(key)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(AT_ONCE, len(keys))):
                    tasks.create_task(work())
        except* AppError as group:
            raise group.exceptions[0] from None

    async def _pages(self) -> AsyncIterator[tuple[list[str], list[str], list[str]]]:
        """The keys of old files; those of them that were discarded; those that are unknown."""
        async for page in self.storage.stale(self.grace):
            keys = list(filter(is_own, page))
            known = await self.db.read(partial(repository.known, keys=keys))
            yield keys, [key for key in keys if known.get(key)], [key for key in keys if key not in known]

    async def _remove(self, keys: Collection[str]) -> None:
        if keys:
            await self.remove(keys)  # which confirms once more: to list what is there may have taken hours
        metrics.removed.labels("orphans").inc(len(keys))
        for key in keys:
            log.info("storage.orphan_removed", key=key)
