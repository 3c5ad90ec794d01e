"""Puts right what crashes and lost hints leave behind. Runs in every process, never as a job.

Each step is a conditional statement, so any number of sweepers may run at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog

from app.database import Database
from app.dispatch.base import Dispatcher
from app.errors import AppError
from app.processing import repository, settlement
from app.processing.watch import JobWatch
from app.settings import Settings

log = structlog.get_logger()

Step = Callable[[], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]

TICK = 1.0  # seconds between looks for due retries and lost leases; a look is one indexed read


class Sweeper:
    def __init__(
        self,
        *,
        db: Database,
        dispatcher: Dispatcher,
        freed: asyncio.Event,
        watch: JobWatch,
        settings: Settings,
        name: str,
    ) -> None:
        """`freed` is set when a place where jobs run becomes free in this process."""
        self._db = db
        self._dispatcher = dispatcher
        self._freed = freed
        self._places_wanted = False
        self._watch = watch
        self._lease = settings.lease_seconds
        self._name = name
        self._sending: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def run(self) -> None:
        """Sweep until cancelled, every tick."""
        await self._guarded(self.announce_all)
        await self._repeat(self.sweep_jobs, min(TICK, self._lease / 2), self._await_place)

    async def announce_all(self) -> None:
        """At start: the hints of what was queued may have died with the process that is started again, or others."""
        if not self._dispatcher.plenty:
            await self._db.write(repository.forget_hints)
        await self.sweep_jobs()

    async def sweep_jobs(self) -> None:
        """Take jobs back from silent workers, and announce what is due."""
        lost, due = await self._db.read(repository.lost_and_due)
        if lost:
            await self.sweep_lost()
        if lost or due:
            await self._announce()

    async def sweep_lost(self) -> None:
        """Take jobs back from silent workers."""
        for job in await self._db.write(lambda conn: settlement.take_back_lost(conn, self._name)):
            self._watch.notify(job.id)

    def stop(self) -> None:
        """Announce no more: this process is about to stop, and others sweep too."""
        self._stopped = True

    async def close(self) -> None:
        """Wait for the hints on their way."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _announce(self) -> None:
        """As many jobs as is of use; the rest is left to whoever has room for it first."""
        self._freed.clear()
        room = 0 if self._stopped else self._dispatcher.room
        take = partial(repository.take_due, limit=room, repeat_after=self._lease, repeats=not self._dispatcher.plenty)
        due = await self._db.write(take) if room else []
        self._places_wanted = len(due) == room
        for job_id in due:
            hint = asyncio.create_task(self._dispatcher.send(job_id))
            self._sending.add(hint)
            hint.add_done_callback(self._sending.discard)

    async def _await_place(self, longest: float) -> None:
        """Sleep, unless something is left that a place is wanted for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await (self._freed.wait() if self._places_wanted else asyncio.sleep(longest))

    async def _repeat(self, step: Step, pause: float, sleep: Sleep = asyncio.sleep) -> None:
        while not self._stopped:
            await self._guarded(step)
            await sleep(pause)

    async def _guarded(self, step: Step) -> None:
        """A sweep that fails is repeated by the next; the sweeper itself never dies of one."""
        try:
            await step()
        except AppError as error:
            log.warning("sweeper.skipped", reason=error.code)
        except Exception:
            log.exception("sweeper.failed")
