"""A limit on how many do something at the same time."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import TooBusy


class Limiter:
    """A limit of `count` permits, granted in order of arrival.

    A waiter fails once no permit was released for `timeout` seconds. A queue that moves may therefore be long; one that
    is stuck fails.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._free = count
        self._timeout = timeout
        self._released_at = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Hold one permit for as long as the block lasts. Raises TooBusy."""
        if self._free:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._release()

    async def _wait(self) -> None:
        began = time.monotonic()
        permit = asyncio.get_running_loop().create_future()
        self._waiters.append(permit)
        try:
            while not permit.done() and (left := max(began, self._released_at) + self._timeout - time.monotonic()) > 0:
                await asyncio.wait([permit], timeout=left)
        except asyncio.CancelledError:
            if permit.done():  # granted at the last moment
                self._release()
            else:
                self._waiters.remove(permit)
            raise
        if not permit.done():
            self._waiters.remove(permit)
            raise TooBusy

    def _release(self) -> None:
        self._released_at = time.monotonic()
        if self._waiters:
            self._waiters.popleft().set_result(None)
        else:
            self._free += 1
