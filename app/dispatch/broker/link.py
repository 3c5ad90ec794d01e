"""A connection to the broker, made anew with growing pauses whenever it breaks or falls silent."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from app.dispatch.broker.hints import PATIENCE, Broker, Seen, encode
from app.errors import ConfigurationError
from app.telemetry import metrics

log = structlog.get_logger()

Use = Callable[[Broker], Coroutine[Any, Any, None]]

START_PATIENCE = 5.0  # seconds that the broker has for all the calls of a start
OPEN_PATIENCE = 2.0  # seconds that it has while a process waits for it
LOOK = 10.0  # seconds between looks at the broker
PAUSES = 0.5, 15.0  # seconds from losing the connection to the next attempt: the first pause, and the longest
SENDERS = 16  # hints that the broker is asked to take at once; one that waits for its turn uses up no patience
ON_THEIR_WAY = 500  # hints to be sent or to wait for their turn, before it is of no use to add more
PLENTY = 1000  # hints that keep every worker busy: as long as so many wait, none needs to be repeated


class Link:
    """Whoever sends is never kept waiting by a broker that is away, and whoever listens begins again."""

    def __init__(self, connect: Callable[[], Broker], use: Use) -> None:
        self._connect = connect
        self._use = use
        self._broker: Broker | None = None
        self._broken: asyncio.Future[Exception]
        self._turns = asyncio.Semaphore(SENDERS)
        self._on_their_way = 0
        self._seen = Seen()
        self._reason: str | None = None

    @property
    def up(self) -> bool:
        return self._broker is not None and not self._broken.done()

    @property
    def room(self) -> int:
        return max(0, ON_THEIR_WAY - self._on_their_way)

    @property
    def plenty(self) -> bool:
        return self._seen.waiting >= PLENTY

    @property
    def alarm(self) -> str | None:
        return f"away: {self._reason}" if self._reason else self._seen.alarm

    async def open(self) -> None:
        """Try once, but not for long, for `run` to try again. Raises ConfigurationError."""
        try:
            async with asyncio.timeout(OPEN_PATIENCE):
                await self._start()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - each broker has errors of its own
            self._away(error)

    async def run(self) -> None:
        """Stay connected and use the connection, until cancelled."""
        first, longest = PAUSES
        pause = first
        while True:
            began = time.monotonic()
            try:
                await self._hold(self._broker or await self._start())
            except Exception as error:  # noqa: BLE001 - each broker has errors of its own
                self._away(error)
            await self.close()
            if time.monotonic() - began > longest:
                pause = first
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - so that not all come at once
            pause = min(2 * pause, longest)

    async def send(self, job_id: UUID) -> bool:
        """Whether the broker has the hint now. Raises nothing."""
        self._on_their_way += 1
        try:
            async with self._turns:
                return await self._send(job_id)
        finally:
            self._on_their_way -= 1

    async def _send(self, job_id: UUID) -> bool:
        if self._broker is None or self._broken.done():
            metrics.wakeups_not_sent.inc()
            return False
        broken = self._broken
        try:
            async with asyncio.timeout(PATIENCE):
                await self._broker.kick(encode(job_id))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._not_sent(broken, ConnectionAbortedError(str(error)))  # by the SDK, which was shut down
        except Exception as error:  # noqa: BLE001 - each broker has errors of its own
            return self._not_sent(broken, error)
        return True

    def _not_sent(self, broken: asyncio.Future[Exception], error: Exception) -> bool:
        metrics.wakeups_not_sent.inc()
        if not broken.done():
            broken.set_result(error)
        return False

    async def close(self) -> None:
        """Disconnect, as far as the broker still takes part in it."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await _shut_down(broker)

    async def _start(self) -> Broker:
        broker = self._connect()
        try:
            async with asyncio.timeout(START_PATIENCE):
                await broker.startup()
                self._seen = await broker.look()
        except BaseException:
            await _shut_down(broker)
            raise
        self._broken = asyncio.get_running_loop().create_future()
        self._broker = broker
        if self._reason:
            log.info("broker.back")
            self._reason = None
        return broker

    async def _hold(self, broker: Broker) -> None:
        """Raise when the connection is of no more use."""
        tasks = [asyncio.create_task(self._use(broker)), asyncio.create_task(self._watch(broker))]
        try:
            waited_for: list[asyncio.Future[Any]] = [*tasks, self._broken]
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended, _ = await asyncio.wait(tasks, timeout=PATIENCE)
        errors = [task.exception() for task in ended if not task.cancelled()]
        raise next(filter(None, errors), None) or self._broken.result()

    async def _watch(self, broker: Broker) -> None:
        while True:
            await asyncio.sleep(LOOK)
            async with asyncio.timeout(PATIENCE):
                self._seen = await broker.look()

    def _away(self, error: Exception) -> None:
        """Say so once, however many hints cannot be sent. In few words: an error's text may hold the URL."""
        reason = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
        if not self._reason:
            log.warning("broker.away", reason=reason)
        self._reason = reason


async def _shut_down(broker: Broker) -> None:
    with suppress(Exception):
        async with asyncio.timeout(PATIENCE):
            await broker.shutdown()
