"""Makes a backup: the database as it is at one moment, then the files that it refers to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Table

from app import VERSION
from app.backup import PROGRESS, Report, in_parallel, manifest
from app.backup.manifest import Content, Manifest
from app.backup.plan import Listed, Plan, lines
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
from app.backup.target import FILES, Target, copy, store, stored_files
from app.database import Database
from app.errors import AppError, NotFound
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

    async def run(self, report: Report) -> Manifest:
        """Make it, and close everything. `report` gets a line of text at a time.

        May be started again after any failure, and does not copy again what it has. Raises BackupError,
        ConfigurationError, and what the databases and storages raise.
        """
        try:
            require_known(await self.source.revision())
            await self.storage.open()
            await self.target.open()
            await Claim(self.db, self.storage).check()
            async with self.target.alone() as confirm:
                await remove_unfinished(self.target)
                made = await self._make(manifest.new_id(), confirm, report)
                if self.keep:
                    confirm()
                    await prune(self.target, self.keep, report)
                return made
        finally:
            for part in (self.db, self.storage, self.target):
                await part.close()

    async def _make(self, backup_id: str, confirm: Callable[[], None], report: Report) -> Manifest:
        began_at = datetime.now(UTC)
        with closing(Plan()) as plan:
            async with self._files_kept(backup_id):
                facts = await self._database(backup_id, plan, report)
                outcomes = await self._files(plan, report)
            files, size = plan.totals()
            stored = await store(self.target.storage, manifest.key(backup_id, manifest.LIST), lines(plan))
            made = Manifest(
                format=manifest.FORMAT,
                id=backup_id,
                version=VERSION,
                kind=self.source.kind,
                files=files,
                size=size,
                missing=outcomes["missing"] + outcomes["damaged"],
                began_at=began_at,
                completed_at=datetime.now(UTC),
                listing=Content.of(stored),
                **facts,
            ).seal()
        confirm()
        text = made.model_dump_json(indent=1).encode()
        await store(self.target.storage, manifest.key(backup_id, manifest.MANIFEST), _once(text))
        return made

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

    async def _files(self, plan: Plan, report: Report) -> Counter[str]:
        """Copy the files whose content the target does not have."""
        async for files in stored_files(self.target):
            plan.hold(files)
        outcomes = Counter[str]()
        for batch in plan.batches():
            left = iter(batch)
            await in_parallel(partial(self._copy_all, left, plan, outcomes, report))
        faulty = outcomes["missing"] + outcomes["damaged"]
        report(f"files: {outcomes['copied']} copied, {outcomes['held']} held before, {faulty} missing or damaged")
        return outcomes

    async def _copy_all(self, left: Iterator[Listed], plan: Plan, outcomes: Counter[str], report: Report) -> None:
        for file in left:
            outcome = await self._copy(file, plan)
            outcomes[outcome] += 1
            if outcome in ("missing", "damaged"):
                report(f"{file.key} is {outcome} in the storage")
            if outcome == "copied" and outcomes[outcome] % PROGRESS == 0:
                report(f"files: {outcomes[outcome]} copied so far")

    async def _copy(self, file: Listed, plan: Plan) -> str:
        if plan.holds(file.sha256, file.size):
            return "held"
        key = f"{FILES}/{file.sha256}"
        try:
            if not await copy(self.storage, file.key, self.target.storage, key, file.content):
                return "damaged"
        except NotFound:
            return "missing"
        plan.hold([(file.sha256, file.size)])
        faults.hit("backup.after_file")
        return "copied"


async def _once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk
