"""Makes a backup: the database as it is at one moment, then the files that it refers to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Table

from app import VERSION
from app.backup import Report, in_parallel, manifest
from app.backup.copying import Copying
from app.backup.manifest import Content, Manifest
from app.backup.owner import require_own
from app.backup.plan import Plan, lines
from app.backup.prune import prune, remove_unfinished
from app.backup.snapshots import (
    Snapshot,
    Source,
    count_of_documents,
    holds_secret,
    latest_event,
    listed,
    require_known,
    revision_of,
)
from app.backup.target import Target, store, stored_files
from app.database import Database
from app.errors import AppError, ConfigurationError
from app.files import backups
from app.files.claim import Claim
from app.storage.base import Storage
from app.telemetry import faults

_Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of one service to one target. `secrets`: the tables that hold encrypted ones.

    `keep`: the number of backups that are kept, of which this is one; 0: all.
    """

    db: Database
    source: Source
    storage: Storage
    target: Target
    secrets: list[Table]
    keep: int = 0

    async def run(self, report: Report) -> tuple[Manifest, bool]:
        """Make it, and close everything. `report` gets a line of text at a time. Returns what it is, and whether the
        storage has all files, as far as it was looked at; each that it has not was reported.

        May be started again after any failure, and does not copy again what it has. Raises BackupError,
        ConfigurationError, and what the databases and storages raise.
        """
        try:
            require_known(await self.source.revision())
            if await self.source.read(latest_event) is None:
                raise ConfigurationError("DATABASE_URL: there is nothing to back up: nothing ever happened there")
            await self.storage.open()
            await self.target.open()
            await Claim(self.db, self.storage).check()
            async with self.target.alone() as confirm:
                await require_own(self.target, self.db)
                await remove_unfinished(self.target)
                made = await self._make(manifest.new_id(), confirm, report)
                if self.keep:
                    confirm()
                    await prune(self.target, self.keep, report)
                return made
        finally:
            for part in (self.db, self.storage, self.target):
                await part.close()

    async def _make(self, backup_id: str, confirm: Callable[[], None], report: Report) -> tuple[Manifest, bool]:
        began_at = datetime.now(UTC)
        with closing(Plan()) as plan:
            async with self._files_kept(backup_id):
                facts = await self._database(backup_id, plan, report)
                complete = await self._files(plan, report)
            files, size, missing = plan.totals()
            stored = await store(self.target.storage, manifest.key(backup_id, manifest.LIST), lines(plan))
            made = Manifest(
                format=manifest.FORMAT,
                id=backup_id,
                version=VERSION,
                kind=self.source.kind,
                files=files,
                size=size,
                missing=missing,
                began_at=began_at,
                completed_at=datetime.now(UTC),
                listing=Content.of(stored),
                **facts,
            ).seal()
        confirm()
        text = made.model_dump_json(indent=1).encode()
        await store(self.target.storage, manifest.key(backup_id, manifest.MANIFEST), _once(text))
        with suppress(AppError):
            await self.db.write(backups.note)
        return made, complete

    async def _database(self, backup_id: str, plan: Plan, report: Report) -> _Facts:
        async with self.source.snapshot() as snapshot:
            facts = await self._facts(snapshot)
            stored = await store(self.target.storage, manifest.key(backup_id, manifest.DATABASE), snapshot.dump())
            report(f"database: {stored.size} bytes, at revision {facts['revision']}")
            faults.hit("backup.after_database")
            async for batch in listed(snapshot):
                plan.add(batch)
        return facts | {"database": Content.of(stored)}

    async def _facts(self, snapshot: Snapshot) -> _Facts:
        return {
            "revision": require_known(await snapshot.read(revision_of)),
            "event": await snapshot.read(latest_event),
            "documents": await snapshot.read(count_of_documents),
            "encrypted": await snapshot.read(partial(holds_secret, tables=self.secrets)),
        }

    @asynccontextmanager
    async def _files_kept(self, backup_id: str) -> AsyncIterator[None]:
        """Have every process of the service keep the files that are there until the block ends."""
        await self.db.write(partial(backups.announce, backup_id=backup_id))
        renewing = asyncio.create_task(self._renew(backup_id))
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(AppError):
                await self.db.write(partial(backups.end, backup_id=backup_id))

    async def _renew(self, backup_id: str) -> None:
        while True:
            await asyncio.sleep(backups.LEASE / 6)
            with suppress(AppError):
                await self.db.write(partial(backups.announce, backup_id=backup_id), urgent=True)

    async def _files(self, plan: Plan, report: Report) -> bool:
        """Copy the files whose content the target does not have. Returns whether the storage has all files."""
        async for files in stored_files(self.target):
            plan.hold(files)
        async for page in self.storage.listing():
            plan.see((each.key, each.size) for each in page if not each.place)
        copying = Copying(self.storage, self.target.storage, plan, report)
        for batch in plan.batches():
            await in_parallel(partial(copying.run, iter(batch)))
        return copying.end()


async def _once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk
