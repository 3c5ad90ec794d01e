"""Brings a backup into an empty database and an empty storage.

The files come first, then the whole database at once, and at last the mark that says whose files they are. Until then
the storage has a mark with which no server starts, and by which a restore that was killed knows its own work.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path

from app import migrations
from app.backup import PROGRESS, BackupError, Report, in_parallel, manifest
from app.backup.manifest import Content, Manifest
from app.backup.plan import Listed, Plan
from app.backup.snapshots import Source, happened
from app.backup.target import FILES, Target, chosen, copy
from app.backup.verify import compare, load_list
from app.database import Database
from app.errors import NotFound
from app.files import backups
from app.files.claim import Claim
from app.storage.base import Storage
from app.telemetry import faults


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore from a target. `connect` makes the database's adapter, once the database is there."""

    target: Target
    source: Source
    storage: Storage
    connect: Callable[[], Database]

    async def run(self, backup_id: str, report: Report) -> tuple[Manifest, bool]:
        """Restore a backup, or the `latest`, and close everything. Returns what it was, and whether all of its files
        are there; each that is not was reported.

        A restore that was killed may be started again. Raises BackupError, ConfigurationError, and what the databases
        and storages raise.
        """
        try:
            await self.target.open()
            await self.storage.open()
            found = await chosen(self.target, backup_id)
            self._require_suitable(found)
            return found, await self._run(found, report)
        finally:
            await self.target.close()
            await self.storage.close()

    async def _run(self, found: Manifest, report: Report) -> bool:
        with closing(Plan()) as plan:
            await load_list(self.target, found, plan.add)
            async with self._verified_dump(found) as dump:
                again = await self._begin(found)
                complete = await self._files(plan, report, again=again)
                if await self.source.revision() is None:
                    await self.source.load(dump)
                    faults.hit("restore.after_database")
        report(f"database: {found.documents} documents, at revision {found.revision}")
        await self._adopt()
        return complete

    def _require_suitable(self, found: Manifest) -> None:
        if found.kind != self.source.kind:
            raise BackupError(
                f"the backup is of {found.kind} and DATABASE_URL names {self.source.kind}: restore it on {found.kind}, "
                "then move that with: python -m app transfer"
            )
        if found.revision > migrations.HEAD:
            raise BackupError(
                f"the backup is at revision {found.revision} and this version knows {migrations.HEAD}: "
                f"restore it with version {found.version}, which has made it, or a newer one"
            )

    async def _begin(self, found: Manifest) -> bool:
        """Mark the empty storage. Returns whether a restore of this backup had begun. Raises BackupError."""
        mark = f"restoring {found.id}"
        current = await self.storage.read_mark()
        if await self.source.revision() is not None and not (
            current == mark and await self.source.read(partial(happened, event=found.event))
        ):
            raise BackupError("the database of DATABASE_URL is not empty: name an empty one")
        if current == mark:
            return True
        if current is not None or await self.storage.sample():
            raise BackupError("the storage of STORAGE_URL is not empty: name an empty one")
        await self.storage.write_mark(mark)
        return False

    @asynccontextmanager
    async def _verified_dump(self, found: Manifest) -> AsyncIterator[Path]:
        """Yield a file on this machine with the dump. Raises BackupError if that is missing or damaged."""
        key = manifest.key(found.id, manifest.DATABASE)
        try:
            async with self.target.storage.local_copy(key) as path:
                if await asyncio.to_thread(_content, path) != found.database:
                    raise BackupError(f"{key} is damaged")
                yield path
        except NotFound:
            raise BackupError(f"{key} is missing") from None

    async def _files(self, plan: Plan, report: Report, *, again: bool) -> bool:
        outcomes = Counter[str]()
        for batch in plan.batches():
            left = iter(batch)
            await in_parallel(partial(self._copy_all, left, outcomes, report, again=again))
        faulty = outcomes["missing"] + outcomes["damaged"]
        report(f"files: {outcomes['copied']} copied, {outcomes['right']} found there, {faulty} missing or damaged")
        return not faulty

    async def _copy_all(self, left: Iterator[Listed], outcomes: Counter[str], report: Report, *, again: bool) -> None:
        for file in left:
            outcome = await self._copy(file, again=again)
            outcomes[outcome] += 1
            if outcome in ("missing", "damaged"):
                report(f"{FILES}/{file.sha256}, which is {file.key}, is {outcome}")
            if outcome == "copied" and outcomes[outcome] % PROGRESS == 0:
                report(f"files: {outcomes[outcome]} copied so far")

    async def _copy(self, file: Listed, *, again: bool) -> str:
        if again and await compare(self.storage, file.key, Content.of(file.content)) == "right":
            await self.storage.sync(file.key)  # the process that was killed may not have come to that
            return "right"
        try:
            key = f"{FILES}/{file.sha256}"
            if not await copy(self.target.storage, key, self.storage, file.key, file.content):
                return "damaged"
        except NotFound:
            return "missing"
        faults.hit("restore.after_file")
        return "copied"

    async def _adopt(self) -> None:
        db = self.connect()
        try:
            await asyncio.to_thread(db.migrate)
            await db.write(backups.forget)
            await Claim(db, self.storage).adopt()
        finally:
            await db.close()


def _content(path: Path) -> Content:
    with path.open("rb") as file:
        return Content(size=path.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())
