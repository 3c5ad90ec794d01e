"""The whole check, part by part, and what it says at its end."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from app.audit.verify import Verification
from app.check import content, states, usage
from app.check.content import Rate, Reader
from app.check.files import FileCheck
from app.check.findings import Finding, rows_of
from app.check.references import References
from app.database import Database
from app.errors import ConfigurationError
from app.files.claim import Claim
from app.settings import Settings
from app.storage.base import Storage

MEGABYTE = 1_000_000


@dataclass(slots=True)
class Check:
    """`deep`: read all files back, at so many `bytes_per_second` (0: as fast as possible)."""

    db: Database
    storage: Storage
    claim: Claim
    settings: Settings
    deep: bool = False
    bytes_per_second: float = 0
    codes: Counter[str] = field(default_factory=Counter)
    looked_at: dict[str, int] = field(default_factory=dict)

    async def run(self) -> AsyncIterator[Finding]:
        """Yield all that is wrong. Changes nothing.

        Raises ConfigurationError if the files are another database's, StorageUnavailable, DatabaseUnavailable.
        """
        await self._require_own_files()
        for part in (self._files(), self._states(), self._trail()):
            async for finding in part:
                self.codes[finding.code] += 1
                yield finding

    def summary(self) -> dict[str, Any]:
        """How much was found and looked at."""
        return {"findings": self.codes.total(), "codes": dict(sorted(self.codes.items())), **self.looked_at}

    async def _require_own_files(self) -> None:
        await self.claim.check()
        known = await self.db.read(partial(rows_of, query=content.STORED.limit(1)))
        if known and await self.storage.read_mark() is None:
            raise ConfigurationError("STORAGE_URL: there is no mark of this service, so the files must be elsewhere")

    async def _files(self) -> AsyncIterator[Finding]:
        with References() as references:
            async for finding in references.read(self.db):
                yield finding
            listed = FileCheck(self.db, self.storage, references, self.settings.orphan_grace_seconds)
            async for finding in listed.run():
                yield finding
            self.looked_at |= {"files": listed.rows, "objects": listed.objects}
            if self.deep:
                reader = Reader(self.db, self.storage, Rate(self.bytes_per_second))
                async for finding in content.differing(reader, references):
                    yield finding
                self.looked_at["bytes"] = reader.bytes

    async def _states(self) -> AsyncIterator[Finding]:
        for part in (
            states.of_documents(self.db, self.settings),
            states.of_jobs(self.db, self.settings),
            usage.differing(self.db),
        ):
            async for finding in part:
                yield finding

    async def _trail(self) -> AsyncIterator[Finding]:
        verification = Verification(self.db.audit_keys)
        await verification.run(self.db)
        for where, what in verification.findings:
            yield Finding("audit-trail", f"{where}: {what}")
        if more := verification.wrong - len(verification.findings):
            yield Finding("audit-trail", f"and {more} more")
        self.looked_at |= {"events": verification.events, "seals": verification.seals}
