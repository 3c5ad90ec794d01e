"""Looks at the inbox again and again, as a chore that one process does for all. See `app/upkeep.py`."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from uuid import UUID

import structlog

from app.auth import users
from app.database import Database
from app.errors import AppError
from app.inbox.base import Changed, Found, Inbox, Unusable
from app.inbox.intake import Intake
from app.inbox.sightings import Sightings, delay
from app.telemetry import metrics
from app.upkeep import Skipped

log = structlog.get_logger()

AT_ONCE = 4  # files taken in at once
LONGEST_LOOK = 60.0  # seconds, after which no more files are begun: a chore has to be done to be seen
LONGEST_PAUSE = 60.0  # seconds after which something that is in the way is tried again


class Watcher:
    """Takes in the files of the inbox for the account that has this email address, in its canonical spelling."""

    def __init__(self, db: Database, inbox: Inbox, intake: Intake, owner: str, *, settle: float) -> None:
        self._db = db
        self._inbox = inbox
        self._intake = intake
        self._owner = owner
        self._sightings = Sightings(settle if inbox.settles else 0)
        self._opened = False
        self._obstacle = ""
        self._obstacles = 0
        self._resume_at = 0.0

    async def open(self) -> None:
        """Connect to the inbox. Until then, nothing is looked at. Raises ConfigurationError."""
        await self._inbox.open()
        self._opened = True

    async def close(self) -> None:
        """Release all resources."""
        await self._inbox.close()

    async def look(self) -> None:
        """Take in what is ready. Raises Skipped if something is in the way; it is then tried again ever more rarely."""
        if not self._opened:
            return
        if time.monotonic() >= self._resume_at:
            self._obstacle = ""
            try:
                await self._look(await self._owner_id(), time.monotonic() + LONGEST_LOOK)
            except (AppError, Unusable) as error:
                self._pause(error)
            if not self._obstacle:
                self._obstacles = 0
        if self._obstacle:
            raise Skipped(self._obstacle)

    async def _owner_id(self) -> UUID:
        row = await self._db.read(partial(users.by_email, email=self._owner))
        if row is None or not row.active:
            raise Unusable("INBOX_OWNER: there is no such account" if row is None else "INBOX_OWNER is disabled")
        owner_id: UUID = row.id
        return owner_id

    async def _look(self, owner_id: UUID, until: float) -> None:
        async for batch in self._inbox.look():
            ready = iter([file for file in batch if self._sightings.is_ready(file)])
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(self._work(owner_id, ready, until))
            if self._obstacle or time.monotonic() > until:
                return
        self._sightings.end_look()

    async def _work(self, owner_id: UUID, files: Iterator[Found], until: float) -> None:
        for file in files:
            if self._obstacle or time.monotonic() > until:
                return
            try:
                await self._intake.take(owner_id, file)
            except Changed:
                self._sightings.forget(file)
            except (AppError, Unusable) as error:
                self._postpone(file, error)
            except Exception:
                log.exception("inbox.failed", file=file.name)
                self._postpone(file, Unusable("failed, see the log"))
            else:
                self._sightings.forget(file)
                self._obstacles = 0

    def _postpone(self, file: Found, error: AppError | Unusable) -> None:
        metrics.inbox_files.labels("postponed").inc()
        self._sightings.postpone(file)
        self._pause(error)

    def _pause(self, error: AppError | Unusable) -> None:
        """Take in nothing for a while: what is in the way of one file is mostly in the way of all."""
        if not self._obstacle:
            self._obstacle = error.code if isinstance(error, AppError) else str(error)
            self._resume_at = time.monotonic() + delay(self._obstacles, LONGEST_PAUSE)
            self._obstacles += 1
