"""Reads backups back, and says what is not as it was written."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Literal

from app.backup import PROGRESS, BackupError, Report, in_parallel, manifest
from app.backup.manifest import Content, Manifest
from app.backup.plan import Listed, Plan, parsed
from app.backup.target import FILES, Target, backup_ids, chosen
from app.errors import NotFound
from app.storage.base import Storage

Outcome = Literal["right", "missing", "damaged"]


@dataclass(frozen=True, slots=True)
class Verification:
    """Reads back all that the backups in a target have, each file once."""

    target: Target

    async def run(self, backup_id: str, report: Report) -> bool:
        """Verify one backup, the `latest`, or `all`, and close the target. Reports each object that is missing or
        damaged, and how many files were so when a backup was made. Returns whether there is nothing to report.

        Raises BackupError, and what the storage raises.
        """
        try:
            await self.target.open()
            return await self._run(backup_id, report)
        finally:
            await self.target.close()

    async def _run(self, backup_id: str, report: Report) -> bool:
        ids = await backup_ids(self.target) if backup_id == "all" else [(await chosen(self.target, backup_id)).id]
        if not ids:
            raise BackupError("there is no complete backup in the target")
        outcomes = Counter[str]()
        lacking = 0
        with closing(Plan()) as verified:
            for each in ids:
                lacking += await self._one(each, verified, outcomes, report)
        faulty = outcomes["missing"] + outcomes["damaged"]
        report(f"verified: {len(ids)} backups, {outcomes['right']} files, {faulty} objects are missing or damaged")
        return not faulty and not lacking

    async def _one(self, backup_id: str, verified: Plan, outcomes: Counter[str], report: Report) -> int:
        """Returns how many files the backup lacks because the service did."""
        with closing(Plan()) as plan:
            try:
                found = await manifest.read(self.target.storage, backup_id)
                await load_list(self.target, found, plan.add)
            except BackupError as error:
                outcomes["damaged"] += 1
                report(str(error))
                return 0
            key = manifest.key(backup_id, manifest.DATABASE)
            _count(await compare(self.target.storage, key, found.database), key, outcomes, report)
            for batch in plan.batches():
                left = iter(batch)
                await in_parallel(partial(self._files, left, verified, outcomes, report))
        if found.missing:
            report(f"backup {backup_id}: {found.missing} files were missing or damaged when the backup was made")
        return found.missing

    async def _files(self, left: Iterator[Listed], verified: Plan, outcomes: Counter[str], report: Report) -> None:
        for file in left:
            if verified.holds(file.sha256, file.size):
                continue
            verified.hold([(file.sha256, file.size)])
            key = f"{FILES}/{file.sha256}"
            outcome = await compare(self.target.storage, key, Content.of(file.content))
            _count(outcome, f"{key}, which is {file.key},", outcomes, report)
            if outcome == "right":
                outcomes[outcome] += 1
                if outcomes[outcome] % PROGRESS == 0:
                    report(f"files: {outcomes[outcome]} so far")


def _count(outcome: Outcome, name: str, outcomes: Counter[str], report: Report) -> None:
    if outcome != "right":
        outcomes[outcome] += 1
        report(f"{name} is {outcome}")


class _Reading:
    """An object that is read, up to one byte past its expected size, so that a longer one differs."""

    def __init__(self, storage: Storage, key: str, expected: Content) -> None:
        self._chunks = storage.read(key, 0, expected.size + 1)
        self._expected = expected
        self._sha256 = sha256()
        self._size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._sha256.update(chunk)
            self._size += len(chunk)
            yield chunk

    @property
    def right(self) -> bool:
        return Content(size=self._size, sha256=self._sha256.hexdigest()) == self._expected


async def load_list(target: Target, of: Manifest, add: Callable[[list[Listed]], None]) -> None:
    """Add the files of a backup, batch by batch. Raises BackupError, at the end perhaps, if their list is missing or
    damaged."""
    key = manifest.key(of.id, manifest.LIST)
    reading = _Reading(target.storage, key, of.listing)
    try:
        async for batch in parsed(aiter(reading)):
            add(batch)
    except NotFound:
        raise BackupError(f"{key} is missing") from None
    except ValueError:
        raise BackupError(f"{key} is damaged") from None
    if not reading.right:
        raise BackupError(f"{key} is damaged")


async def compare(storage: Storage, key: str, expected: Content) -> Outcome:
    """Read an object, and compare it with what it must be."""
    reading = _Reading(storage, key, expected)
    try:
        async for _ in reading:
            pass
    except NotFound:
        return "missing"
    return "right" if reading.right else "damaged"
