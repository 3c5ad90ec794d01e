"""Moves a stopped service: its rows into another database, its files into another storage.

A transfer keeps no record of its progress. What the target already holds must equal the source's and is not copied
again, so a transfer that was killed is simply started again. Rows are copied first, because a file without a row would
be an orphan. A process that served during the transfer is detected at the end by the rows that it wrote.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app import migrations
from app.database import Database
from app.errors import ConfigurationError
from app.files.claim import Claim
from app.storage.base import Storage
from app.transfer import files, rows
from app.transfer.errors import TransferError
from app.upkeep import Skipped

__all__ = ["Transfer", "TransferError"]

DISCONNECT_TIMEOUT = 3  # seconds until the connections of a killed process are gone


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer from one service's places to another's.

    Without a `source_db` the rows stay in `target_db`; without storages the files stay where they are.
    """

    target_db: Database
    source_db: Database | None = None
    source_storage: Storage | None = None
    target_storage: Storage | None = None

    async def run(self, report: Callable[[str], None]) -> bool:
        """Copy and verify everything. `report` gets one line of text at a time, for the operator.

        Returns False if files were missing or damaged at the source, each of which was reported. May be run again after
        any failure. Raises TransferError, ConfigurationError, and what the databases and storages raise.
        """
        await self._open()
        before = await (self.source_db or self.target_db).read(rows.fingerprint)
        if self.source_db is not None:
            await rows.copy(self.source_db, self.target_db, report)
        complete = True
        if self.source_storage is not None and self.target_storage is not None:
            await _refuse_other_files(self.target_db, self.target_storage)
            complete = await files.Files(self.target_db, self.source_storage, self.target_storage, report).copy()
        await self._refuse_changed(before)
        return complete

    async def close(self) -> None:
        """Close the databases and storages."""
        for part in (self.source_db, self.target_db, self.source_storage, self.target_storage):
            if part is not None:
                await part.close()

    def _databases(self) -> list[tuple[str, Database]]:
        both = (("source", self.source_db), ("target", self.target_db))
        return [(name, db) for name, db in both if db is not None]

    async def _open(self) -> None:
        for name, db in self._databases():
            await _refuse_in_use(name, db)
        await asyncio.to_thread(self.target_db.migrate)
        if self.source_db is not None:
            await _refuse_other_schema(self.source_db)
        for storage in (self.source_storage, self.target_storage):
            if storage is not None:
                await storage.open()

    async def _refuse_changed(self, before: rows.Fingerprint) -> None:
        """Raise TransferError if any process is connected to either database, or if either has changed since the copy
        began."""
        for name, db in self._databases():
            await _refuse_in_use(name, db)
            if await db.read(rows.fingerprint) != before:
                raise TransferError(
                    f"the {name} has changed meanwhile: stop every process of the service, and begin anew"
                )


async def _refuse_in_use(name: str, db: Database) -> None:
    for _ in range(DISCONNECT_TIMEOUT):
        if not await db.is_in_use():
            return
        await asyncio.sleep(1)
    raise TransferError(f"the {name} database is in use: stop every process of the service, and begin anew")


async def _refuse_other_files(db: Database, target: Storage) -> None:
    """Of another service. A target that has none is marked as this service's."""
    claim = Claim(db, target)
    try:
        await claim.check()
        await claim.refresh(last=True)
    except (ConfigurationError, Skipped) as error:
        raise TransferError(f"the target storage is another service's ({error}). Transfer into an empty one") from None


async def _refuse_other_schema(source: Database) -> None:
    found = await source.read(migrations.revision)
    if found != migrations.HEAD:
        raise TransferError(
            f"the source database is at revision {found}, and this version at {migrations.HEAD}: "
            "migrate the source first (python -m app migrate)"
        )
