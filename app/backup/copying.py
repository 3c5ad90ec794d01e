"""Copies files to where their contents are kept, each content once, and says of which the storage lacks."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator

from app.backup import PROGRESS, Report
from app.backup.manifest import Content
from app.backup.plan import Listed, Plan
from app.backup.target import FILES, copy
from app.backup.verify import compare
from app.errors import NotFound
from app.storage.base import Storage
from app.telemetry import faults

FAULTY = ("missing", "damaged")


class Copying:
    """From a storage to the contents of a target. `plan` knows what the one lists and the other holds."""

    def __init__(self, source: Storage, target: Storage, plan: Plan, report: Report) -> None:
        self._source = source
        self._target = target
        self._plan = plan
        self._report = report
        self._outcomes = Counter[str]()
        self._one_of_a_content = defaultdict[str, asyncio.Lock](asyncio.Lock)  # by the beginning of its SHA-256

    async def run(self, files: Iterator[Listed]) -> None:
        """Copy those of the files whose content is not held. Others may do so at the same time."""
        for file in files:
            async with self._one_of_a_content[file.sha256[:2]]:
                outcome = await self._one(file)
            self._outcomes[outcome] += 1
            if outcome in FAULTY:
                self._report(f"{file.key} is {outcome} in the storage")
            if outcome == "copied" and self._outcomes[outcome] % PROGRESS == 0:
                self._report(f"files: {self._outcomes[outcome]} copied so far")

    def end(self) -> bool:
        """Report how many there were of each kind, and return whether the storage has all files."""
        copied, held, same = (self._outcomes[each] for each in ("copied", "held", "same"))
        faulty = sum(self._outcomes[each] for each in FAULTY)
        line = f"files: {copied} copied, {held} held before, {same} the same as another, {faulty} missing or damaged"
        *_, lacking = self._plan.totals()
        self._report(f"{line}, {lacking} of which are not in the backup" if faulty else line)
        return not faulty

    async def _one(self, file: Listed) -> str:
        if not self._plan.holds(file.sha256, file.size):
            return await self._copy(file)
        if not self._plan.sees(file.key, file.size):  # it is read to be sure: a listing may leave out what is new
            found = await compare(self._source, file.key, Content.of(file.content))
            if found != "right":
                return found
        return "same" if self._plan.copied(file.sha256) else "held"

    async def _copy(self, file: Listed) -> str:
        try:
            if not await copy(self._source, file.key, self._target, f"{FILES}/{file.sha256}", file.content):
                return "damaged"
        except NotFound:
            return "missing"
        self._plan.hold([(file.sha256, file.size)], copied=True)
        faults.hit("backup.after_file")
        return "copied"
