"""The gate that files come in by, whichever way they are sent: so many at once, and none too slowly."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from app.documents.slots import slot
from app.errors import RequestTimeout
from app.settings import Settings

RATE_WINDOW = 10.0  # seconds over which the rate is measured: a fast beginning earns no slow end
SLOT_PATIENCE = 60.0  # seconds that an upload waits for a slot


class Gate:
    """One for all uploads of a process."""

    def __init__(self, settings: Settings) -> None:
        self._slots = asyncio.Semaphore(settings.upload_slots)
        self._idle = settings.upload_idle_seconds
        self._min_rate = settings.upload_min_rate
        self._longest = settings.upload_max_seconds

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the places for uploads: they bound memory, and keep the disk from being shared by a thousand.

        Raises TooBusy.
        """
        return slot(self._slots, SLOT_PATIENCE)

    def paced(self, stream: AsyncIterator[bytes], longest: float = math.inf) -> AsyncIterator[bytes]:
        """Pass the stream on, but not for a client that is too slow, or takes more than `longest` seconds.

        Raises RequestTimeout.
        """
        return paced(stream, self._idle, self._min_rate, min(longest, self._longest))


async def paced(stream: AsyncIterator[bytes], idle: float, min_rate: float, longest: float) -> AsyncIterator[bytes]:
    """Pass the stream on, but not for a client that stalls for `idle` seconds, stays below `min_rate` bytes/s or takes
    more than `longest` seconds for it all.

    uvicorn waits for a body for ever. Raises RequestTimeout.
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
