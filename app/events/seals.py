"""Seals: each says which events there were in a range of numbers, and which seal came before it.

An event's own MAC shows that it was changed; a seal shows that one is gone, or came later. It is made only when no
transaction that has taken a number in its range can still be under way: numbers are not committed in order.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Self

import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    delete,
    func,
    select,
    update,
)

from app.database import Database, UTCDateTime, insert_on_conflict, metadata, now, time_of
from app.events import signing
from app.events.models import events
from app.events.settled import LAG

log = structlog.get_logger()

QUIET = 900.0  # seconds without an unsigned event before the first seal: the release before has stopped
MOST = 5000  # events under one seal
FIRST = bytes(32)  # what the first seal says of the one before it

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("to_seq", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    # The last event without a MAC from before the first seal; later ones are forged. 0: there was none.
    Column("unsigned_to", BigInteger, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("previous", LargeBinary(32), nullable=False),
    Column("key_id", String(8), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("sealed_at", UTCDateTime, nullable=False),
    # Proves that retention has deleted the events, and nobody else.
    Column("forgotten", LargeBinary(32)),
)
_KEPT = audit_seals.c.forgotten.is_(None)
Index("ix_audit_seals_kept", audit_seals.c.id, postgresql_where=_KEPT, sqlite_where=_KEPT)


@dataclass(frozen=True, slots=True)
class Seal:
    """A row of the table. `digest`: SHA-256 of the events' MACs, in the order of their numbers."""

    id: int
    from_seq: int
    to_seq: int
    count: int
    unsigned_to: int
    digest: bytes
    previous: bytes
    key_id: str
    sealed_at: datetime
    mac: bytes = b""
    forgotten: bytes | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(**row._asdict())

    def mac_by(self, key: bytes) -> bytes:
        """The MAC that the seal must have."""
        return signing.sign(key, signing.encoded(["seal", *self.shown.values()]))

    def forgotten_by(self, key: bytes) -> bytes:
        """What proves that the events were deleted by retention."""
        return signing.sign(key, signing.encoded(["forgotten", self.mac.hex()]))

    @property
    def shown(self) -> dict[str, Any]:
        """As it leaves the machine, but for its MAC."""
        shown = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(self).items()}
        del shown["mac"], shown["forgotten"]
        return shown | {"sealed_at": signing.microseconds(self.sealed_at)}

    @property
    def anchor(self) -> dict[str, Any]:
        """What is kept of the seal where the database's owner cannot change it."""
        return self.shown | {"mac": self.mac.hex()}


Anchoring = Callable[[Seal], Awaitable[None]]


async def seal(db: Database, anchor: Anchoring) -> None:
    """Seal all events older than LAG, and have each seal leave the machine: as a log line, and by `anchor`."""
    while made := await _seal_some(db):
        log.info("audit.sealed", **made.anchor)
        await anchor(made)


async def _seal_some(db: Database) -> Seal | None:
    """The next seal; None if there is nothing to seal, or another process was faster."""
    draft = await db.read(partial(_draft, keys=db.audit_keys))
    if draft is None:
        return None
    inserted = await db.write(partial(_insert, seal=draft))
    return draft if inserted else None


def _draft(conn: Connection, keys: Sequence[bytes]) -> Seal | None:
    last = latest(conn)
    unsigned_to = last.unsigned_to if last else _unsigned_to(conn)
    since = last.to_seq if last else 0
    rows = _settled(conn, since) if unsigned_to is not None else []
    if not rows:
        return None
    macs = _macs(conn, rows, keys[0])
    draft = Seal(
        id=last.id + 1 if last else 1,
        from_seq=since + 1,
        to_seq=rows[-1].seq,
        count=len(rows),
        unsigned_to=unsigned_to or 0,
        digest=hashlib.sha256(b"".join(macs)).digest(),
        previous=last.digest if last else FIRST,
        key_id=signing.key_id(keys[0]),
        sealed_at=time_of(conn),
    )
    return replace(draft, mac=draft.mac_by(keys[0]))


def _unsigned_to(conn: Connection) -> int | None:
    """The last event without a MAC, 0 if there is none; None while processes of the release before may be at work."""
    unsigned = select(events.c.seq, events.c.at > now(-QUIET)).where(events.c.mac.is_(None))
    found = conn.execute(unsigned.order_by(events.c.seq.desc()).limit(1)).one_or_none()
    if found is None:
        return 0
    return None if found[1] else found[0]


def _settled(conn: Connection, after: int) -> list[Row[Any]]:
    """Up to MOST events, until the first that is younger than LAG."""
    query = select(events.c.seq, events.c.mac, (events.c.at > now(-LAG)).label("young"))
    rows = conn.execute(query.where(events.c.seq > after).order_by(events.c.seq).limit(MOST)).all()
    young = next((index for index, row in enumerate(rows) if row.young), len(rows))
    return list(rows[:young])


def _macs(conn: Connection, rows: list[Row[Any]], key: bytes) -> list[bytes]:
    """The MACs of the events. Those that have none get one here, so that they cannot be changed any more."""
    if all(row.mac for row in rows):
        return [row.mac for row in rows]
    span = events.c.seq.between(rows[0].seq, rows[-1].seq)
    unsigned = {row["seq"]: row for row in conn.execute(select(events).where(span, events.c.mac.is_(None))).mappings()}
    return [row.mac or signing.mac_of(key, dict(unsigned[row.seq])) for row in rows]


def _insert(conn: Connection, seal: Seal) -> bool:
    row = insert_on_conflict(conn, audit_seals).values(asdict(seal)).on_conflict_do_nothing()
    return bool(conn.execute(row).rowcount)


def latest(conn: Connection) -> Seal | None:
    """The newest seal."""
    newest = select(func.max(audit_seals.c.id)).scalar_subquery()
    row = conn.execute(select(audit_seals).where(audit_seals.c.id == newest)).one_or_none()
    return Seal.of(row) if row else None


def page(conn: Connection, after: int, limit: int) -> list[Seal]:
    """Up to `limit` seals with an id above `after`, the oldest first."""
    query = select(audit_seals).where(audit_seals.c.id > after).order_by(audit_seals.c.id).limit(limit)
    return [Seal.of(row) for row in conn.execute(query)]


async def forget(db: Database, ttl: float) -> None:
    """Delete sealed events that happened more than `ttl` seconds ago, however many, but never the latest.

    A seal's events go together, and the seal stays: what is left can be verified as before.
    """
    while await db.write(partial(_forget_some, ttl=ttl)):
        pass


def _forget_some(conn: Connection, ttl: float) -> bool:
    """Delete the events of the oldest seal that has any, unless one of them is too young."""
    row = conn.execute(select(audit_seals).where(_KEPT).order_by(audit_seals.c.id).limit(1)).one_or_none()
    if row is None:
        return False
    seal = Seal.of(row)
    own = events.c.seq.between(seal.from_seq, seal.to_seq)
    kept = select(events.c.seq).where(own, events.c.at > now(-ttl)).limit(1)
    if seal.to_seq >= conn.scalar(select(func.max(events.c.seq))) or conn.scalar(kept) is not None:
        return False
    conn.execute(delete(events).where(own))
    proof = seal.forgotten_by(signing.keys_of(conn)[0])
    conn.execute(update(audit_seals).where(audit_seals.c.id == seal.id, _KEPT).values(forgotten=proof))
    return True
