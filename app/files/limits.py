"""Limits on the transfer of files: how many run at the same time, and how slow a client may be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import RequestTimeout, TooBusy

RATE_WINDOW = 10.0  # seconds over which the rate is measured: a fast beginning does not make up for a slow end


class Limiter:
    """At most `count` holders at the same time. The others wait in order of arrival, for `timeout` seconds each."""

    def __init__(self, count: int, timeout: float) -> None:
        self._permits = asyncio.Semaphore(count)
        self._timeout = timeout

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Hold one unit of the capacity for as long as the block lasts. Raises TooBusy."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._permits.acquire()
        except TimeoutError:
            raise TooBusy from None
        try:
            yield
        finally:
            self._permits.release()


async def paced(stream: AsyncIterator[bytes], idle: float, min_rate: float, longest: float) -> AsyncIterator[bytes]:
    """Pass a stream on, until the client is too slow: uvicorn itself would wait for a body for ever.

    Raises RequestTimeout if the client sends nothing for `idle` seconds, averages less than `min_rate` bytes/s over
    RATE_WINDOW, or takes more than `longest` seconds in all.
    """
    begun = since = time.monotonic()
    received = 0
    while time.monotonic() - begun < longest:
        try:
            async with asyncio.timeout(idle):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout from None
        if chunk is None:
            return
        received += len(chunk)
        if (elapsed := time.monotonic() - since) > RATE_WINDOW:
            if received < min_rate * elapsed:
                raise RequestTimeout
            since, received = time.monotonic(), 0
        yield chunk
    raise RequestTimeout
