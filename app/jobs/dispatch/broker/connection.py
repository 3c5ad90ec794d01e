"""The Dispatcher of a process that shares a broker with others."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

import structlog

from app.errors import ConfigurationError
from app.jobs.dispatch.base import Puller
from app.jobs.dispatch.broker.base import Broker
from app.settings.broker import BrokerConfig, RabbitQueue, RedisStream, SqsQueue
from app.telemetry import metrics

log = structlog.get_logger()

T = TypeVar("T")

_OPEN_TIMEOUT = 2.0  # seconds for the first attempt to connect, for which the start of the process waits
_CONNECT_TIMEOUT = 5.0  # seconds for each attempt
_CALL_TIMEOUT = 2.0  # seconds for a message to be sent, a check or a disconnection
_CHECK_INTERVAL = 10.0  # seconds
_RETRY_INTERVALS = 0.5, 15.0  # seconds between attempts to connect: the first, and the longest
_SENDERS = 16  # messages that are sent at once


class BrokerDispatcher:
    """Adapter of the Dispatcher port over a broker, to which it connects again whenever the connection is lost.

    A wake-up that the broker does not take goes to the Puller of this process.
    """

    def __init__(
        self,
        config: BrokerConfig,
        puller: Puller,
        *,
        setting: str = "BROKER_URL",
        message: Callable[[UUID], str] = str,
        call_timeout: float = _CALL_TIMEOUT,
        check_interval: float = _CHECK_INTERVAL,
        retry_intervals: tuple[float, float] = _RETRY_INTERVALS,
    ) -> None:
        """`setting` names what `config` was read from, and `message` is what is sent about a job, in ASCII. All times
        are in seconds."""
        self._config = config
        self._puller = puller
        self._setting = setting
        self._message = message
        self._call_timeout = call_timeout
        self._check_interval = check_interval
        self._retry_intervals = retry_intervals
        self._senders = asyncio.Semaphore(_SENDERS)
        self._broker: Broker | None = None
        self._lost: asyncio.Future[Exception]  # why the connection to `_broker` is of no more use
        self._receiving: asyncio.Task[bool] | None = None
        self._stopped = False
        self._reason: str | None = None

    @property
    def alarm(self) -> str | None:
        return f"away: {self._reason}" if self._reason else None

    async def open(self) -> None:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._connect()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - each SDK has errors of its own
            self._set_away(error)

    async def run(self) -> None:
        interval, longest = self._retry_intervals
        while True:
            began = time.monotonic()
            try:
                await self._use(self._broker or await self._connect())
            except Exception as error:  # noqa: BLE001 - each SDK has errors of its own
                self._set_away(error)
            await self.close()
            if time.monotonic() - began > longest:
                interval = self._retry_intervals[0]
            await asyncio.sleep(interval * random.uniform(0.5, 1))  # noqa: S311 - so that processes spread out
            interval = min(2 * interval, longest)

    async def send(self, job_id: UUID) -> None:
        async with self._senders:  # not part of the timeout: with the first message that fails, all that wait fail
            broker = self._broker if self._broker and not self._lost.done() else None
            if broker is None or not await self._succeeds(self._in_time, broker.send, self._message(job_id)):
                metrics.wakeups_not_sent.inc()
                self._puller.wake(job_id)

    def stop(self) -> None:
        self._stopped = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def close(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await self._disconnect(broker)

    async def _connect(self) -> Broker:
        broker = _adapter(self._config)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await _called(broker.connect)
        except BaseException as error:
            await self._disconnect(broker)
            if isinstance(error, ConfigurationError):
                raise ConfigurationError(f"{self._setting}: {error}") from None
            raise
        self._lost = asyncio.get_running_loop().create_future()
        self._broker = broker
        if self._reason:
            log.info("broker.back", setting=self._setting)
            self._reason = None
        return broker

    async def _disconnect(self, broker: Broker) -> None:
        with suppress(Exception):
            await self._in_time(broker.close)

    async def _use(self, broker: Broker) -> None:
        """Receive and check until the connection is lost. Raises why it was."""
        self._receiving = asyncio.create_task(self._succeeds(self._receive, broker))
        checking = asyncio.create_task(self._succeeds(self._check, broker))
        try:
            raise await self._lost
        finally:
            self._receiving.cancel()
            checking.cancel()
            await asyncio.wait([self._receiving, checking], timeout=self._call_timeout)

    async def _receive(self, broker: Broker) -> None:
        try:
            while not self._stopped:
                await self._until_free(broker)
                body = await _called(broker.receive)
                job_id = _decode(body) if body is not None else None
                if job_id is not None:
                    self._puller.wake(job_id)
        except asyncio.CancelledError:
            if self._stopped:  # and the connection stays, to send
                with suppress(Exception):
                    await self._in_time(broker.pause)
            raise

    async def _until_free(self, broker: Broker) -> None:
        """Return when there is capacity. Unless that is now, others get the messages meanwhile."""
        free = asyncio.ensure_future(self._puller.until_free())
        try:
            await asyncio.wait([free], timeout=0)
            if not free.done():
                await _called(broker.pause)
            await free
        finally:
            free.cancel()

    async def _check(self, broker: Broker) -> None:
        while True:
            await asyncio.sleep(self._check_interval)
            await self._in_time(broker.check)

    async def _in_time(self, call: Callable[..., Awaitable[None]], *args: Any) -> None:
        async with asyncio.timeout(self._call_timeout):
            await _called(call, *args)

    async def _succeeds(self, call: Callable[..., Awaitable[None]], *args: Any) -> bool:
        """Whether nothing is raised. Otherwise that is the reason why the connection is lost."""
        lost = self._lost
        try:
            await call(*args)
        except Exception as error:  # noqa: BLE001 - each SDK has errors of its own
            if not lost.done():
                lost.set_result(error)
            return False
        return True

    def _set_away(self, error: Exception) -> None:
        """Log it once. Only the type of an SDK's error is repeated: its text may hold the URL."""
        reason = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
        if not self._reason:
            log.warning("broker.away", setting=self._setting, reason=reason)
        self._reason = reason


async def _called(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Call the broker. An SDK may cancel the calls of a connection that it gives up, but this task shall not end."""
    try:
        return await call(*args)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionAbortedError from None


def _decode(body: bytes) -> UUID | None:
    """The id in a message. None for anything else that somebody has put into the queue; it is logged."""
    try:
        return UUID(body.decode("ascii"))
    except ValueError:
        log.warning("wakeup.unreadable", size=len(body))
        return None


def _adapter(config: BrokerConfig) -> Broker:
    """The SDKs are imported only when they are used: that takes some 0.3 s."""
    # ruff: noqa: PLC0415
    match config:
        case SqsQueue():
            from app.jobs.dispatch.broker.sqs import SqsBroker

            return SqsBroker(config)
        case RedisStream():
            from app.jobs.dispatch.broker.redis import RedisBroker

            return RedisBroker(config)
        case RabbitQueue():
            from app.jobs.dispatch.broker.rabbitmq import RabbitBroker

            return RabbitBroker(config)
