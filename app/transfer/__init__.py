"""Moving a stopped service: its rows into another database, its files into another storage.

A transfer keeps no notes. What the target holds already must be the source's, and is not brought again; so one that
was killed is simply started anew. Rows come first: a file without a row would be an orphan. Whoever has
served meanwhile, and is gone again, is known in the end by the rows.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app import migrations
from app.database import Database
from app.documents.claim import Claim
from app.errors import ConfigurationError
from app.storage.base import Storage
from app.transfer import files, rows
from app.transfer.errors import TransferError

__all__ = ["Transfer", "TransferError"]

LEAVING = 3  # seconds that the connections of a process that was killed may take to go


@dataclass(frozen=True, slots=True)
class Transfer:
    """From where to where. Without a `source_db` the rows stay in `target_db`; without storages the files stay."""

    target_db: Database
    source_db: Database | None = None
    source_storage: Storage | None = None
    target_storage: Storage | None = None

    async def run(self, tell: Callable[[str], None]) -> bool:
        """True when everything is there; False when files could not be had, which were told of one by one.

        Raises TransferError, ConfigurationError, and what the databases and storages raise. It may be run again.
        """
        await self._open()
        before = await (self.source_db or self.target_db).read(rows.state)
        if self.source_db is not None:
            await rows.copy(self.source_db, self.target_db, tell)
        whole = True
        if self.source_storage is not None and self.target_storage is not None:
            await _refuse_other_files(self.target_db, self.target_storage)
            whole = await files.Files(self.target_db, self.source_storage, self.target_storage, tell).copy()
        await self._refuse_changed(before)
        return whole

    async def close(self) -> None:
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

    async def _refuse_changed(self, before: rows.State) -> None:
        """Of a process that is still there or has gone again, who wrote what was not copied, or to the copy."""
        for name, db in self._databases():
            await _refuse_in_use(name, db)
            if await db.read(rows.state) != before:
                raise TransferError(
                    f"the {name} has changed meanwhile: stop every process of the service, and begin anew"
                )


async def _refuse_in_use(name: str, db: Database) -> None:
    for _ in range(LEAVING):
        if not await db.is_in_use():
            return
        await asyncio.sleep(1)
    raise TransferError(f"the {name} database is in use: stop every process of the service, and begin anew")


async def _refuse_other_files(db: Database, target: Storage) -> None:
    """Of another service. A target that has none is marked as this service's."""
    try:
        await Claim(db, target, actor="operator").begin()
    except ConfigurationError as error:
        raise TransferError(f"the target storage is another service's ({error}). Transfer into an empty one") from None


async def _refuse_other_schema(source: Database) -> None:
    found = await source.read(migrations.revision)
    if found != migrations.HEAD:
        raise TransferError(
            f"the source database is at revision {found}, and this version at {migrations.HEAD}: "
            "migrate the source first (python -m app migrate)"
        )
