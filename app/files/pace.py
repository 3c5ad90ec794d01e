"""How slow a client may send a file."""

import asyncio
import time
from collections.abc import AsyncIterator

from app.errors import RequestTimeout

RATE_WINDOW = 10.0  # seconds over which the rate is measured: a fast beginning does not make up for a slow end


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
