"""Looks at the table once a second, in every process: for jobs to pull, and for leases that have expired."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from app.database import Database
from app.errors import AppError
from app.jobs import repository, settlement, transitions
from app.jobs.runner import Runner
from app.jobs.settlement import Kinds
from app.jobs.watch import JobWatch

log = structlog.get_logger()

INTERVAL = 1.0  # seconds between two looks; a shorter lease makes it shorter
FULL_INTERVAL = 60.0  # seconds between two looks at the whole table
UNSERVED_SECONDS = 5.0  # for which a due job may wait in a queue that this process does not serve
UNSERVED_SHARE = 0.05  # of the time is spent on counting such jobs at the most
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
# A transaction is over so long after the database read the clock for it: statements, and idleness, have timeouts. One
# that takes longer all the same, such as a commit that waits for a standby, is found by the next full look.
COMMIT_MARGIN = timedelta(seconds=5)


class Rescuer:
    """Wakes the runner when something is due, and gives the jobs of silent workers back to the queue.

    A look reads only what can have become due, or expired, since a look that found nothing. A full look reads
    everything: at the start, now and then, and when the database's clock was put back.
    """

    def __init__(self, db: Database, runner: Runner, kinds: Kinds, watch: JobWatch, *, lease: float, name: str) -> None:
        self._db = db
        self._runner = runner
        self._kinds = kinds
        self._watch = watch
        self._actor = f"worker:{name}"
        self._interval = min(INTERVAL, lease / 2)
        self._full_look_at = 0.0
        self._due_since = self._expired_since = self._looked_at = EARLIEST
        self._unserved: dict[str, int] = {}
        self._unserved_at = 0.0

    @property
    def alarm(self) -> str | None:
        """Queues with due jobs that nobody has begun and that this process cannot: no process may be able to."""
        waiting = ", ".join(f"{queue} ({count})" for queue, count in sorted(self._unserved.items()))
        return f"due jobs in queues that this process does not serve: {waiting}" if waiting else None

    async def run(self) -> None:
        """Look until cancelled. A look that fails is made up for by the next."""
        while True:
            try:
                await self.look()
            except AppError as error:
                log.warning("rescuer.skipped", reason=error.code)
            except Exception:
                log.exception("rescuer.failed")
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Wake the runner if something is due, rescue what has expired."""
        if time.monotonic() >= self._full_look_at:
            await self._begin_full_look()
        found = await self._db.read(
            partial(
                transitions.look,
                queues=self._runner.queues,
                due_since=self._due_since,
                expired_since=self._expired_since,
            ),
            brief=True,
        )
        if found.at < self._looked_at:
            self._full_look_at = 0.0  # the clock was put back
        self._looked_at = found.at
        committed = found.at - COMMIT_MARGIN
        self._due_since = self._runner.due_since = min(found.due or committed, committed)
        if found.due:
            self._runner.wake()
        if found.expired:
            await self.rescue()
        else:
            self._expired_since = committed
        if time.monotonic() >= self._unserved_at:
            await self._count_unserved()

    async def _count_unserved(self) -> None:
        began = time.monotonic()
        count = partial(repository.unserved, queues=self._runner.queues, seconds=UNSERVED_SECONDS)
        self._unserved = await self._db.read(count)
        ended = time.monotonic()
        self._unserved_at = ended + max(UNSERVED_SECONDS / 2, (ended - began) / UNSERVED_SHARE)

    async def rescue(self) -> None:
        """Give every job whose lease has expired back to the queue, or end it if it has no try left."""
        while rescued := await self._db.write(partial(settlement.rescue_expired, kinds=self._kinds, actor=self._actor)):
            for job in rescued:
                self._watch.notify(job.id)
        self._runner.wake()

    async def _begin_full_look(self) -> None:
        if await self._db.read(transitions.clock_was_put_back):
            await self._db.write(transitions.follow_clock)
        self._due_since = self._expired_since = self._runner.due_since = EARLIEST
        self._full_look_at = time.monotonic() + FULL_INTERVAL
