"""A limiter for the connections of a pool, fair where the pool's own queue is not."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal


class ConnectionLimiter:
    """A FIFO semaphore of `count` permits whose timeout restarts whenever a permit is released.

    A queue that moves may therefore be long; one that is stuck fails after `timeout` seconds.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._permits = asyncio.Semaphore(count)
        self._timeout = timeout
        self._released_at = 0.0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Hold one permit for as long as the block lasts. Raises TimeoutError."""
        if self._permits.locked():
            await self._wait()
        else:
            await self._permits.acquire()
        try:
            yield
        finally:
            self._released_at = time.monotonic()
            self._permits.release()

    async def _wait(self) -> None:
        began = time.monotonic()
        permit = asyncio.create_task(self._permits.acquire())
        try:
            while not permit.done() and (left := max(began, self._released_at) + self._timeout - time.monotonic()) > 0:
                await asyncio.wait([permit], timeout=left)
        except asyncio.CancelledError:
            self._abandon(permit)
            raise
        if not permit.done():
            self._abandon(permit)
            raise TimeoutError

    def _abandon(self, permit: asyncio.Task[Literal[True]]) -> None:
        if not permit.cancel():  # it was granted at the last moment
            self._permits.release()
