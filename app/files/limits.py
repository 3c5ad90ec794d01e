"""Limits on the transfer of files: how many run at the same time, and how slow a client may be."""

import asyncio
import math
import time
from collections.abc import AsyncIterator

from app.errors import RequestTimeout
from app.limiter import Limiter
from app.settings import Settings

RATE_WINDOW = 10.0  # seconds over which the rate is measured: a fast beginning does not make up for a slow end
UPLOAD_TIMEOUT = 60.0  # seconds that an upload waits while no other ends


class UploadLimits:
    """The limits that all uploads of a process share.

    `limiter` bounds their memory, and how many share the disk.
    """

    def __init__(self, settings: Settings) -> None:
        self.limiter = Limiter(settings.upload_slots, UPLOAD_TIMEOUT)
        self._idle = settings.upload_idle_seconds
        self._min_rate = settings.upload_min_rate
        self._longest = settings.upload_max_seconds

    def paced(self, stream: AsyncIterator[bytes], longest: float = math.inf) -> AsyncIterator[bytes]:
        """Pass a stream on within the limits, and for no more than `longest` seconds. Raises RequestTimeout."""
        return paced(stream, self._idle, self._min_rate, min(longest, self._longest))


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
