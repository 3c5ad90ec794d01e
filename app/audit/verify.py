"""Verifying the audit trail: that each event is as it was written, and that none is gone or came later.

It takes the keys, and reads everything once, in the order of the numbers, in bounded memory.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select

from app.database import Database, Prepared
from app.events import events, seals, signing
from app.events.seals import Seal, audit_seals

BATCH = 2000  # rows that are read at once
GAPS = 5  # numbers that are named where events are missing
MOST_FINDINGS = 10_000  # that are kept; all are counted
MOST_KNOWN = 500_000  # ids in each of two generations: 50 MB. A copy of an older event is known by its time alone
REPLAY = timedelta(days=1)  # by which clocks do not differ: an event that is older than those before it is a copy

_EVENTS = Prepared(
    select(events).where(events.c.seq > bindparam("after")).order_by(events.c.seq).limit(bindparam("limit"))
)


class Finding(NamedTuple):
    """Something that is not as it was written."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Verification:
    """What was found, and how much was looked at. `unsigned`: events of the release before, under the first seals.

    `batch` events are read at once; between two batches others have their turn.
    """

    def __init__(self, keys: Sequence[bytes], batch: int | None = None) -> None:
        self._batch = batch or BATCH
        self.findings: list[Finding] = []
        self.wrong = 0
        self.events = self.unsigned = self.unsealed = self.seals = 0
        self._keys = {signing.key_id(key): key for key in keys}
        self._unsigned_to: int | None = None
        self._previous: Seal | None = None
        self._newest: datetime | None = None
        self._ids: set[int] = set()
        self._older_ids: set[int] = set()

    def __str__(self) -> str:
        return (
            f"events: {self.events}, of which {self.unsigned} unsigned and {self.unsealed} not sealed yet; "
            f"seals: {self.seals}; wrong: {self.wrong}"
        )

    async def run(self, db: Database, since: datetime | None = None) -> None:
        """Verify everything, or what was sealed `since` and all that follows."""
        first = await db.read(partial(_sealed_before, moment=since)) if since else None
        await self._run(db, first, first.to_seq if first else None)

    async def run_latest(self, db: Database, most: int) -> None:
        """Verify the latest events, `most` or fewer than as many more as one seal may have; and their seals."""
        first, after = await db.read(partial(latest, most=most))
        await self._run(db, first, after)

    async def _run(self, db: Database, first: Seal | None, after: int | None) -> None:
        """Verify the seals from the `first` on, and the events with a number above `after`."""
        self._previous = first
        self._unsigned_to = first.unsigned_to if first else None
        sealed = _sealed(db, first.id if first else 0)
        seal, found = self._checked(await anext(sealed, None)), _Found()
        async for row in _rows(db, after, self._batch):
            while seal and row["seq"] > seal.to_seq:
                await self._end_range(db, seal, found)
                seal, found = self._checked(await anext(sealed, None)), _Found()
            self._check_event(row, seal, found)
        while seal:
            await self._end_range(db, seal, found)
            seal, found = self._checked(await anext(sealed, None)), _Found()

    async def compare(self, db: Database, anchors: AsyncIterator[Mapping[str, Any]]) -> int:
        """Find the seals that are not as they left the machine. Returns how many anchors there were."""
        count = 0
        async for anchor in anchors:
            count += 1
            name = f"seal {anchor['id']} of the anchors"
            seal = await db.read(partial(_seal, number=anchor["id"]))
            if seal is None:
                self.report(name, f"is gone, and with it what happened up to {anchor['to_seq']}")
            elif seal.anchor["mac"] != anchor["mac"]:
                self.report(name, "is another one than in the database")
        return count

    def report(self, where: str, what: str) -> None:
        """Add a finding."""
        self.wrong += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(where, what))

    def _checked(self, seal: Seal | None) -> Seal | None:
        if seal:
            self._check_seal(seal)
        return seal

    def _check_seal(self, seal: Seal) -> None:
        self.seals += 1
        name, previous, self._previous = f"seal {seal.id}", self._previous, seal
        key = self._keys.get(seal.key_id)
        if key is None:
            self.report(name, f"its key, {seal.key_id}, is not in AUDIT_KEY: it cannot be verified")
        elif seal.mac != seal.mac_by(key):
            self.report(name, "was changed")
        if self._unsigned_to is None:
            self._unsigned_to = seal.unsigned_to
        expected = (previous.id, previous.to_seq, previous.digest) if previous else (0, 0, seals.FIRST)
        if (seal.id - 1, seal.from_seq - 1, seal.previous) != expected:
            self.report(name, "does not follow the one before it: seals are missing, or were changed")

    def _check_event(self, row: dict[str, Any], seal: Seal | None, found: "_Found") -> None:
        self.events += 1
        name = f"event {row['seq']} ({row['id']})"
        mac = row["mac"]
        if mac is None:
            self.unsigned += 1
            if self._unsigned_to is not None and row["seq"] > self._unsigned_to:
                self.report(name, "is not signed, and was written after signing began")
            key = self._keys.get(seal.key_id) if seal else None
            mac = signing.mac_of(key, row) if key else b""
        elif not any(signing.mac_of(key, row) == mac for key in self._keys.values()):
            self.report(name, "was changed, not written by this service, or signed with a key that is not in AUDIT_KEY")
        if self._is_copy(row["id"], row["at"]):
            self.report(name, "is a copy of an earlier one, or happened long before those that precede it")
        if seal is None:
            self.unsealed += 1
        elif row["seq"] < seal.from_seq:
            self.report(name, "came later: its number is before all that was sealed")
        else:
            found.add(row["seq"], mac, seal)

    def _is_copy(self, event_id: UUID, at: datetime) -> bool:
        self._newest = newest = max(at, self._newest or at)
        short = event_id.int & (2**64 - 1)  # the random half
        if at < newest - REPLAY or short in self._ids or short in self._older_ids:
            return True
        if len(self._ids) >= MOST_KNOWN:
            self._ids, self._older_ids = set(), self._ids
        self._ids.add(short)
        return False

    async def _end_range(self, db: Database, seal: Seal, found: "_Found") -> None:
        """Check a seal, unless retention has deleted its events since it was read."""
        if found.count < seal.count and seal.forgotten is None:
            now = await db.read(partial(_seal, number=seal.id))
            if now and self._is_forgotten(now):
                return
        self._check_range(seal, found)

    def _is_forgotten(self, seal: Seal) -> bool:
        """Whether retention has deleted its events, as it proves with the key."""
        proofs = (seal.forgotten_by(key) for key in self._keys.values())
        return seal.forgotten is not None and seal.forgotten in proofs

    def _check_range(self, seal: Seal, found: "_Found") -> None:
        name = f"events {seal.from_seq} to {seal.to_seq} (seal {seal.id})"
        if self._is_forgotten(seal):
            if found.count:
                self.report(name, f"were deleted when they were old enough, and {found.count} came back")
        elif found.count < seal.count:
            self.report(name, f"{seal.count - found.count} of {seal.count} are missing{found.gaps(seal)}")
        elif found.count > seal.count:
            self.report(name, f"{found.count - seal.count} came later")
        elif found.sha256.digest() != seal.digest:
            self.report(name, "are others than were sealed")


class _Found:
    """The events in the range of a seal."""

    def __init__(self) -> None:
        self.count = 0
        self.sha256 = hashlib.sha256()
        self._missing: list[int] = []
        self._last: int | None = None

    def add(self, seq: int, mac: bytes, seal: Seal) -> None:
        self.count += 1
        self.sha256.update(mac)
        expected = seal.from_seq if self._last is None else self._last + 1
        self._missing += range(expected, min(seq, expected + GAPS - len(self._missing)))
        self._last = seq

    def gaps(self, seal: Seal) -> str:
        """The numbers that nothing has. One of a change that was undone is among them, where there was one."""
        after = seal.from_seq if self._last is None else self._last + 1
        missing = [*self._missing, *range(after, min(seal.to_seq + 1, after + GAPS))][:GAPS]
        return f": no event has the number {', '.join(map(str, missing))}" if missing else ""


def _sealed_before(conn: Connection, moment: datetime) -> Seal | None:
    """The last seal of before the moment: all that happened since is under later ones, or under none yet."""
    query = select(audit_seals).where(audit_seals.c.sealed_at < moment).order_by(audit_seals.c.id.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    return Seal.of(row) if row else None


def latest(conn: Connection, most: int) -> tuple[Seal | None, int]:
    """The last seal that is over `most` events old, and the number after which to verify: where it ends, unless nothing
    has been sealed since."""
    highest = conn.scalar(select(func.max(events.c.seq))) or 0
    by_age = select(audit_seals).order_by(audit_seals.c.id.desc()).limit(1)
    row = conn.execute(by_age.where(audit_seals.c.to_seq <= highest - most)).one_or_none()
    first = Seal.of(row) if row else None
    latest = conn.scalar(select(func.max(audit_seals.c.id)))
    sealed_since = latest is not None and (first is None or latest > first.id)
    end = first.to_seq if first else 0
    return first, end if sealed_since else max(end, highest - most)


def _seal(conn: Connection, number: int) -> Seal | None:
    row = conn.execute(select(audit_seals).where(audit_seals.c.id == number)).one_or_none()
    return Seal.of(row) if row else None


async def _sealed(db: Database, after: int) -> AsyncIterator[Seal]:
    while found := await db.read(partial(seals.page, after=after, limit=BATCH)):
        for seal in found:
            yield seal
        after = found[-1].id


async def _rows(db: Database, after: int | None, batch: int) -> AsyncIterator[dict[str, Any]]:
    values = {"after": -(2**63) if after is None else after, "limit": batch}
    while rows := await db.read(partial(_EVENTS.all, values=values)):
        for row in rows:
            yield row
        values["after"] = rows[-1]["seq"]
