"""Which database the files of a storage belong to.

The storage carries a mark, which names an event of the database that it serves: the latest, or nearly. Another database
has no such event, and neither has this one if it was put back to an earlier state. A database without this
event removes no files: files of documents that it has never seen would look like orphans to it.
"""

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app import events
from app.database import Database
from app.errors import AppError, ConfigurationError, StorageUnavailable
from app.events import Reference, seals
from app.events.catalogue.base import Event
from app.events.catalogue.service import StorageClaimed, StorageDisputed
from app.files import backups, repository
from app.storage.base import Storage
from app.telemetry import context
from app.upkeep import Postponed, Skipped

log = structlog.get_logger()

REFRESH = 1.0  # seconds after which what has happened is in the mark, at the latest twice that
CHECK = 2.0  # seconds after which the mark is read again, though nothing has happened here
SETTLED = 5.0  # seconds after a start in which another database would have objected
RECENT = 0.5  # seconds; a mark of that age was just written by another process, and is left alone for now
LAST_MARK_TIMEOUT = 2.0  # seconds that the last mark may take at a stop

FOREIGN = "the files there belong to another database, or to a newer state of this one"
DISPUTED = "two databases claim the files there"
UNREADABLE = "the mark there is not this service's"
NO_DOCUMENT = "there are files, and not one of the first {} has a document in this database"
BACKUP = "a backup is being made, and no file is removed meanwhile"
REMEDY = "if this database is the right one, run: python -m app adopt"

_EVENT = "([0-9]+) ([0-9a-f-]{36})"
_MARK = re.compile(f"{_EVENT}(?: disputed by {_EVENT})?", re.ASCII)


class Adopted(NamedTuple):
    """How many files were examined, and how many of them have a document in the database."""

    files: int
    with_document: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What the mark says to this database. `objection`: why the files are not its own, or not only its own."""

    objection: str = ""
    event: Reference | None = None
    recent: bool = False
    ours: bool = False  # whether this database is a party to the dispute
    to_dispute: bool = False


class Claim:
    """This process's view of the mark."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self._db = db
        self._storage = storage
        self._begun_at: float | None = None
        self._objection = ""
        self._marked: Reference | None = None
        self._checked_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    def alarm(self) -> str | None:
        """Why nothing is removed from the storage; None while all is well."""
        return f"nothing is removed: {self._objection}; {REMEDY}" if self._objection else None

    async def begin(self) -> None:
        """At a start: raise ConfigurationError if the files are another database's. A storage that is away is looked at
        later."""
        with suppress(StorageUnavailable):
            await self.check()
        self._begun_at = time.monotonic()
        with suppress(AppError, Skipped):
            # No other database has this event, not even a copy of this one: whoever serves that sees it in the mark.
            await self._db.write(partial(_append, event=StorageClaimed()))
            await self.refresh(last=True)

    async def check(self) -> None:
        """Raise ConfigurationError if the files are another database's. A party to a dispute passes, with an alarm:
        otherwise a stray copy could keep the right one from starting."""
        found = await self._look()
        if found.objection and not found.ours:
            raise ConfigurationError(f"STORAGE_URL, or DATABASE_URL: {found.objection}; {REMEDY}")

    async def end(self) -> None:
        """At a stop: have the mark name the latest event, if that can be done at once."""
        if self._begun_at is not None and not self._objection:
            with suppress(AppError, Skipped, TimeoutError):
                async with asyncio.timeout(LAST_MARK_TIMEOUT):
                    await self.refresh(last=True)

    async def refresh(self, *, last: bool = False) -> None:
        """Have the mark name the latest event. Cheap while nothing happens. Raises Skipped while the files are not this
        database's."""
        latest = await self._db.read(events.latest)
        if (self._objection or latest == self._marked) and time.monotonic() - self._checked_at < CHECK:
            self._raise_objection()
            return
        found = await self._confirmed()
        if found.recent and not last:
            return
        if latest is not None and (found.event is None or found.event.seq < latest.seq):
            await self._storage.write_mark(_text(latest))
        self._marked = latest

    async def confirm_deletion(self) -> None:
        """Before the file of a deleted document is removed: have the mark name the deletion, or a later event.

        Waits until this process has run for so long that another database, of which this one is a copy, would have
        objected. Raises Skipped while the files are not this database's, Postponed while a backup is made.
        """
        if self._begun_at is not None:
            await asyncio.sleep(max(0.0, self._begun_at + SETTLED - time.monotonic()))
        await self.refresh(last=True)
        await self._require_no_backup()

    async def forget_events(self, ttl: float) -> None:
        """Delete events older than `ttl` seconds, once the mark names the latest, which is kept. Without the event that
        the mark names, the files would be another database's."""
        await self.refresh(last=True)
        await seals.forget(self._db, ttl)

    async def confirm(self) -> None:
        """Before files are removed. Raises Skipped if they are not this database's, as far as can be seen now, and
        Postponed while a backup is made."""
        await self._confirmed()
        await self._require_no_backup()

    async def adopt(self) -> Adopted:
        """Declare that the files are this database's, whatever the mark says. Every other one will object."""
        claimed = await self._db.write(partial(_append, event=StorageClaimed(), actor=context.OPERATOR))
        await self._storage.write_mark(_text(claimed))
        keys = await self._storage.sample()
        return Adopted(len(keys), await self._with_document(keys))

    async def _require_no_backup(self) -> None:
        if await self._db.read(backups.under_way):
            raise Postponed(BACKUP)

    async def _confirmed(self) -> _Found:
        async with self._one_at_a_time:
            found = await self._look()
            self._checked_at = time.monotonic()
            before, self._objection = self._objection, found.objection
            if found.objection and found.objection != before:
                log.warning("storage.disputed", reason=found.objection)
            elif before and not found.objection:
                log.info("storage.undisputed")
            if found.to_dispute:
                own = await self._db.write(partial(_append, event=StorageDisputed()))
                assert found.event
                await self._storage.write_mark(f"{_text(found.event)} disputed by {_text(own)}")
            self._raise_objection()
            return found

    async def _look(self) -> _Found:
        text = await self._storage.read_mark()
        if text is None:
            return _Found(await self._objection_to_files())
        mark = _MARK.fullmatch(text)
        if mark is None:
            return _Found(UNREADABLE)
        # The mark was read first: what any process of this database has named is committed by now.
        event = Reference(int(mark[1]), UUID(mark[2]))
        recent = await self._happened(event)
        if mark[3] is not None:
            ours = recent is not None or await self._happened(Reference(int(mark[3]), UUID(mark[4]))) is not None
            return _Found(DISPUTED, event, ours=ours)
        if recent is None:
            return _Found(FOREIGN, event, to_dispute=True)
        return _Found(event=event, recent=recent)

    async def _happened(self, event: Reference) -> bool | None:
        return await self._db.read(partial(events.happened_within, event=event, seconds=RECENT))

    async def _objection_to_files(self) -> str:
        """Before there was a mark, the files themselves must do: those of a database have documents in it."""
        keys = await self._storage.sample()
        ours = not keys or await self._with_document(keys)
        return "" if ours else NO_DOCUMENT.format(len(keys))

    async def _with_document(self, keys: list[str]) -> int:
        return len(await self._db.read(partial(repository.known, keys=keys)))

    def _raise_objection(self) -> None:
        if self._objection:
            raise Skipped(self._objection)


def _append(conn: Connection, event: Event, actor: str | None = None) -> Reference:
    """An event that no other database has, be it a copy of this one. Without an `actor` it is the process's."""
    with context.acting(actor or context.worker()):
        events.append(conn, event)
    latest = events.latest(conn)
    assert latest
    return latest


def _text(event: Reference) -> str:
    return f"{event.seq} {event.id}"
