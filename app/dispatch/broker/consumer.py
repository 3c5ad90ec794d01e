"""The worker's end: hints become runs, and are acknowledged afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from uuid import UUID

import structlog
from taskiq import AckableMessage
from taskiq.utils import maybe_awaitable

from app.dispatch.broker.hints import PATIENCE, Broker, decode

log = structlog.get_logger()


class Consumer:
    """Takes a hint only when there is a place for its job, so that hints wait where every worker can take them."""

    def __init__(self, run: Callable[[UUID], Awaitable[None]], places: int) -> None:
        """With no places it never asks for a hint: so it is in a process that only sends them."""
        self._run = run
        self.places = places
        self._free = asyncio.Semaphore(places)
        self._at_work: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def use(self, broker: Broker) -> None:
        """Take hints until `stop`, then none but stay. Raises what the broker does."""
        lost = asyncio.Event()
        try:
            if not self._stopped.is_set():
                await self._listen_until_stopped(broker, lost)
            await lost.wait()
        finally:
            lost.set()

    def stop(self) -> None:
        self._stopped.set()

    async def close(self) -> None:
        """Wait for the acknowledgements of runs that have ended."""
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=PATIENCE)

    async def _listen_until_stopped(self, broker: Broker, lost: asyncio.Event) -> None:
        listening = asyncio.create_task(self._listen(broker, lost))
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait([listening, stopping], return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
                raise ConnectionError("the broker ended the conversation")
        finally:
            listening.cancel()
            stopping.cancel()
            await asyncio.wait([listening, stopping])

    async def _listen(self, broker: Broker, lost: asyncio.Event) -> None:
        async with aclosing(broker.listen()) as messages:
            while True:
                await self._free.acquire()
                try:
                    message = await anext(messages)
                except BaseException:
                    self._free.release()
                    raise
                task = asyncio.create_task(self._take(message, lost))
                self._at_work.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._at_work.discard(task)
        self._free.release()

    async def _take(self, message: AckableMessage, lost: asyncio.Event) -> None:
        job_id = decode(message.data)
        if job_id is not None:
            await self._run(job_id)
        if lost.is_set():
            return  # with the connection went the right to acknowledge: the hint comes again, and finds nothing to do
        try:
            async with asyncio.timeout(PATIENCE):
                await maybe_awaitable(message.ack())
        except Exception as error:  # noqa: BLE001 - each broker has errors of its own
            log.info("hint.not_acknowledged", reason=type(error).__name__)
