"""Reads all stored files back in the background, round after round, to find those that have rotted.

One process does it for all. How far it got is in the database, so that a restart loses no more than some seconds of it.
"""

import time
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Column, Connection, Integer, Row, String, Table, Uuid, or_, select, update

from app import events
from app.check.content import STORED, Kind, Rate, Reader, Stored
from app.check.findings import walk
from app.database import Database, UTCDateTime, after_commit, insert_on_conflict, metadata, now, unix_time
from app.documents.models import documents
from app.events.catalogue.service import StorageMismatch
from app.files.claim import Claim
from app.files.models import files
from app.storage.base import Storage
from app.telemetry import metrics
from app.upkeep import Skipped

log = structlog.get_logger()

SLICE = 120.0  # seconds that it reads at once
ROUND = 86400.0  # seconds between the beginnings of two rounds, at the least
MOST = 100  # mismatches in one slice: more of them are rather a storage that is not the right one
_SAVED = 5.0  # seconds after which it is noted how far it got

# One row, made with the first round.
scrubs = Table(
    "scrubs",
    metadata,
    Column("name", String(50), primary_key=True),
    # The id of the file that was read last in this round. NULL: none was yet, or the round is complete.
    Column("position", Uuid),
    Column("began_at", UTCDateTime, nullable=False),
    # When a round was completed last.
    Column("completed_at", UTCDateTime),
    # What was found in this round, and in the one before.
    Column("mismatches", Integer, nullable=False),
    Column("mismatches_before", Integer, nullable=False),
)

_OURS = scrubs.c.name == "files"


class _Taken(Exception):
    """Another process has gone on from here."""


class Scrubber:
    """`bytes_per_second`: how many it reads."""

    def __init__(self, db: Database, storage: Storage, claim: Claim, bytes_per_second: int) -> None:
        self._db = db
        self._claim = claim
        self._reader = Reader(db, storage, Rate(bytes_per_second))
        self._found = 0
        self._position: UUID | None = None

    def alarm(self) -> str | None:
        """How many files were not as they were stored, in this round or the one before; None if all were."""
        if not self._found:
            return None
        return f"stored files that are missing or damaged: {self._found}; to see which, run: python -m app check --deep"

    async def refresh(self) -> None:
        """Learn what was found, by whichever process."""
        self._found = max(await self._db.read(tally))

    async def scrub(self) -> None:
        """Read on for a while, from where the last one got to.

        Raises Skipped if very many files are not as they were stored, or if they are another database's, and
        StorageUnavailable.
        """
        await self._claim.confirm()
        row = await self._db.write(_begun)
        if row is None:
            return
        self._position = row.position
        try:
            if await self._read_on():
                mismatches = await self._db.write(partial(_complete, position=self._position))
                log.info("storage.scrubbed", mismatches=mismatches)
        except _Taken:
            return
        finally:
            await self.refresh()

    async def _read_on(self) -> bool:
        """Read files until the slice or the round is over, and return whether it is the round."""
        until, saved_at, found = time.monotonic() + SLICE, time.monotonic(), 0
        query = STORED if self._position is None else STORED.where(files.c.id > self._position)
        async for _, rows in walk(self._db, query, [files.c.id]):
            for file in (Stored._make(row) for row in rows):
                kind = await self._reader.wrong_with(file)
                found += kind is not None
                if kind or time.monotonic() > min(saved_at + _SAVED, until):
                    await self._db.write(partial(_note, before=self._position, file=file, kind=kind))
                    self._position, saved_at = file.id, time.monotonic()
                if found >= MOST:
                    raise Skipped(f"{found} files are missing or damaged: look at the storage")
                if time.monotonic() > until:
                    return False
        return True


def last_complete(conn: Connection) -> float | None:
    """When a round was completed last, in seconds since 1970; None if none was."""
    moment: float | None = conn.scalar(select(unix_time(scrubs.c.completed_at)).where(_OURS))
    return moment


class Tally(NamedTuple):
    """How many mismatches a round has found, and the one before."""

    mismatches: int
    before: int


def tally(conn: Connection) -> Tally:
    """What the alarm goes by."""
    row = _row(conn)
    return Tally(row.mismatches, row.mismatches_before) if row else Tally(0, 0)


def forgive(conn: Connection, known: Tally) -> None:
    """End the alarm, now that all files were read and are as they were stored; unless more was found than was `known`
    before they were."""
    same = (scrubs.c.mismatches == known.mismatches, scrubs.c.mismatches_before == known.before)
    conn.execute(update(scrubs).where(_OURS, *same).values(mismatches=0, mismatches_before=0))


def _row(conn: Connection) -> Row[Any] | None:
    return conn.execute(select(scrubs).where(_OURS)).one_or_none()


def _begun(conn: Connection) -> Row[Any] | None:
    """The round that is under way, begun now if one is due. None: it is too early for another."""
    first = insert_on_conflict(conn, scrubs).values(name="files", began_at=now(), mismatches=0, mismatches_before=0)
    conn.execute(first.on_conflict_do_nothing(index_elements=["name"]))
    due = (_OURS, scrubs.c.completed_at >= scrubs.c.began_at, scrubs.c.began_at <= now(-ROUND))
    conn.execute(update(scrubs).where(*due).values(began_at=now()))
    under_way = or_(scrubs.c.completed_at.is_(None), scrubs.c.completed_at < scrubs.c.began_at)
    return conn.execute(select(scrubs).where(_OURS, under_way)).one_or_none()


def _note(conn: Connection, before: UUID | None, file: Stored, kind: Kind | None) -> None:
    """Note that a file was read, and what is wrong with it. Raises _Taken."""
    here = (_OURS, scrubs.c.position.is_not_distinct_from(before))
    values = {"position": file.id, "mismatches": scrubs.c.mismatches + int(kind is not None)}
    if conn.execute(update(scrubs).where(*here).values(values)).rowcount == 0:
        raise _Taken
    if kind:
        of = conn.scalar(select(documents.c.id).where(documents.c.id == file.id, documents.c.file_id == file.id))
        events.append(conn, StorageMismatch(kind=kind, file=file.key, document_id=str(of) if of else None))
        after_commit(conn, metrics.storage_mismatches.labels(kind).inc)


def _complete(conn: Connection, position: UUID | None) -> int:
    """Note that the round is complete, and return how many mismatches it has found. Raises _Taken."""
    here = (_OURS, scrubs.c.position.is_not_distinct_from(position))
    values = {"position": None, "completed_at": now(), "mismatches_before": scrubs.c.mismatches, "mismatches": 0}
    done = update(scrubs).where(*here).values(values).returning(scrubs.c.mismatches_before)
    row = conn.execute(done).one_or_none()
    if row is None:
        raise _Taken
    return int(row.mismatches_before)
