"""Polls the table once a second, in every process: for jobs to pull, or that have become due, and expired leases."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Protocol

import structlog

from app.database import Database
from app.errors import AppError
from app.jobs import claims, repository, settlement, transitions
from app.jobs.claims import Poll
from app.jobs.kinds import Kinds
from app.jobs.pauses import Pauses
from app.jobs.turns import EARLIEST, Turns
from app.jobs.watch import JobWatch
from app.telemetry import metrics

log = structlog.get_logger()

INTERVAL = 1.0  # seconds between two polls; a shorter lease makes it shorter
_FULL_INTERVAL = 60.0  # seconds between two polls of the whole table
_UNSERVED_INTERVAL = 5.0  # seconds between two counts of the jobs that this process cannot run
UNSERVED_SECONDS = 5.0  # for which a job may be due in a queue that this process does not serve
_UNSERVED_SHARE = 0.02  # of the time may be spent on counting them
# A transaction has ended so long after the database read the clock for it, because statements and idleness have
# timeouts. One that takes longer, such as a commit that waits for a standby, is found by the next full poll.
_COMMIT_MARGIN = timedelta(seconds=10)


class Served(Protocol):
    """Queues that are served, and what is told and woken of whoever serves them: a runner, or workers elsewhere."""

    turns: Turns
    pauses: Pauses
    elsewhere: bool
    """Whether others than the processes of the service hold the jobs."""

    @property
    def queues(self) -> Sequence[str]:
        """Their names."""

    def wake(self) -> None:
        """Have somebody look for what is due."""


class Rescuer:
    """Wakes the runners when something is due, and gives the jobs of silent workers back to the queue.

    A poll reads only rows that became due, or expired, since the last poll that found nothing. A full poll reads all:
    at the start, once a minute, and when the database's clock was put back.
    """

    def __init__(self, db: Database, runners: Sequence[Served], kinds: Kinds, watch: JobWatch, *, lease: float) -> None:
        self._db = db
        self._runners = runners
        self._queues = [queue for runner in runners for queue in runner.queues]
        self._elsewhere = [queue for runner in runners if runner.elsewhere for queue in runner.queues]
        self._kinds = kinds
        self._watch = watch
        self._interval = min(INTERVAL, lease / 2)
        self._unserved_interval = min(_UNSERVED_INTERVAL, lease)
        self._longest_idle = 2 * lease
        self._full_poll_at = 0.0
        self._due_since = self._expired_since = self._polled_at = EARLIEST
        self._clock_suspect = asyncio.Event()
        self._unserved: dict[str, int] = {}
        self._idle: dict[str, int] = {}
        self._idle_since: dict[str, float] = {}
        self._failing = ""

    @property
    def alarm(self) -> str | None:
        """Polls that fail, or queues with due jobs that nobody has begun: those that this process does not serve, and
        those from which no worker elsewhere has held a job for two leases."""
        if self._failing:
            return f"jobs cannot be polled: {self._failing}"
        idle = {queue: count for queue, count in self._idle.items() if self._is_idle_for_long(queue)}
        waiting = {
            "due jobs in queues that this process does not serve": self._unserved,
            "due jobs that no worker elsewhere claims": idle,
        }
        return "; ".join(f"{why}: {_counted(queues)}" for why, queues in waiting.items() if queues) or None

    def _is_idle_for_long(self, queue: str) -> bool:
        paused = any(runner.pauses.cover(queue) for runner in self._runners)
        return not paused and time.monotonic() - self._idle_since[queue] >= self._longest_idle

    async def run(self) -> None:
        """Poll until cancelled. A poll that fails is repeated by the next."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.poll, self._interval))
            loops.create_task(self._repeat(self._follow_clock, 0))
            loops.create_task(self._repeat(self._count_unserved, self._unserved_interval))

    async def poll(self) -> None:
        """Wake the runners if something is due, and rescue what has expired."""
        turn_since = min(runner.turns.since for runner in self._runners)
        if time.monotonic() >= self._full_poll_at:
            turn_since, self._due_since, self._expired_since = 0.0, EARLIEST, EARLIEST
            self._full_poll_at = time.monotonic() + _FULL_INTERVAL
        found = await self._db.read(
            partial(
                claims.poll,
                queues=self._queues,
                turn_since=turn_since,
                due_since=self._due_since,
                expired_since=self._expired_since,
            )
        )
        if found.at < self._polled_at:
            self._full_poll_at = 0.0
            for runner in self._runners:
                runner.turns.forget()
            self._clock_suspect.set()
        self._polled_at = found.at
        for runner in self._runners:
            runner.turns.polled({queue: found.heads[queue] for queue in runner.queues}, found.at)
            runner.pauses.polled(found.paused)
        committed = found.at - _COMMIT_MARGIN
        if found.expired:
            await self.rescue()
        else:
            self._expired_since = committed
        if found.waiting or found.expired:
            await self._assign_turns(found)
        self._due_since = min(found.waiting or committed, committed)
        for runner in self._runners:
            due = any(found.heads[queue] is not None and not runner.pauses.cover(queue) for queue in runner.queues)
            if found.waiting or found.expired or due:
                runner.wake()

    async def _assign_turns(self, found: Poll) -> None:
        """Give every job that has become due its turn."""
        heads = {queue: found.at.timestamp() if head is None else head for queue, head in found.heads.items()}
        assign = partial(transitions.assign_turns, heads=heads, due_since=self._due_since)
        while await self._db.write(assign):
            pass

    async def rescue(self) -> None:
        """Give every job whose lease has expired back to the queue, or end it if it has no try left."""
        for exhausted in (False, True):
            while rescued := await self._db.write(partial(settlement.rescue, kinds=self._kinds, exhausted=exhausted)):
                for job in rescued:
                    self._watch.notify(job.id)

    async def _follow_clock(self) -> None:
        """Set moments anew that were set before the clock was put back; then wait for a reason to look again."""
        if await self._db.read(transitions.clock_was_put_back):
            while await self._db.write(transitions.follow_clock):
                pass
            self._full_poll_at = 0.0
        self._clock_suspect.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FULL_INTERVAL):
                await self._clock_suspect.wait()

    async def _count_unserved(self) -> None:
        began = time.monotonic()
        count = partial(repository.unserved, queues=self._queues, seconds=UNSERVED_SECONDS)
        self._unserved = await self._db.read(count)
        if self._elsewhere:
            self._idle = await self._db.read(partial(repository.idle, queues=self._elsewhere))
            self._idle_since = {queue: self._idle_since.get(queue, began) for queue in self._idle}
        await asyncio.sleep((time.monotonic() - began) / _UNSERVED_SHARE)

    async def _repeat(self, step: Callable[[], Awaitable[None]], interval: float) -> None:
        while True:
            try:
                await step()
            except AppError as error:
                self._fail(error.code)
                log.warning("rescuer.skipped", reason=error.code)
            except Exception as error:
                self._fail(type(error).__name__)
                log.exception("rescuer.failed")
            else:
                self._failing = ""
            await asyncio.sleep(interval)

    def _fail(self, reason: str) -> None:
        self._failing = reason
        metrics.polls_failed.inc()


def _counted(queues: Mapping[str, int]) -> str:
    return ", ".join(f"{queue} ({count})" for queue, count in sorted(queues.items()))
