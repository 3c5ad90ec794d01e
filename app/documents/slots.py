"""Places for work of which there can only be so much at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import TooBusy


@asynccontextmanager
async def slot(slots: asyncio.Semaphore, patience: float) -> AsyncIterator[None]:
    """One of the slots, if it is free within `patience` seconds. Raises TooBusy."""
    try:
        async with asyncio.timeout(patience):
            await slots.acquire()
    except TimeoutError:
        raise TooBusy from None
    try:
        yield
    finally:
        slots.release()
