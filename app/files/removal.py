"""Removing at once what nothing refers to any more. Where that fails, a sweep for orphans does it later."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from app.errors import AppError
from app.files.claim import Claim
from app.storage.base import Storage
from app.upkeep import Skipped

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Removal:
    """Raises no AppError: the answer to whoever waits stays what it is."""

    storage: Storage
    claim: Claim

    async def unrecorded(self, key: str) -> None:
        """Remove a file that this process has stored, and whose row was not committed."""
        try:
            await self.storage.delete(key)
        except AppError as error:
            log.warning("storage.left_behind", key=key, reason=error.code)

    async def discarded(self, keys: Iterable[str]) -> None:
        """Remove files whose rows were discarded, unless they may be another database's: a sweep then decides."""
        with suppress(Skipped, AppError):
            await self.claim.confirm_deletion()
            for key in keys:
                await self.unrecorded(key)
