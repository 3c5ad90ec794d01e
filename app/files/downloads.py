"""Sending stored files to clients, a limited number at once."""

from collections.abc import AsyncIterator
from uuid import UUID

from app.limiter import Limiter, Usage

DOWNLOAD_TIMEOUT = 5.0  # seconds that a download waits while its owner is granted none


class Downloads:
    """The downloads of one process: those of documents and of large results."""

    def __init__(self, slots: int) -> None:
        self._limiter = Limiter(slots, DOWNLOAD_TIMEOUT)

    @property
    def usage(self) -> Usage:
        """How many are under way, and how many can be."""
        return self._limiter.usage

    async def send(self, owner_id: UUID, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the chunks of a response, limited until the last one is sent or the client disconnects.

        Fetches the first chunk before it returns, so that errors come before the response begins. Raises NotFound,
        TooBusy, Unavailable.
        """
        limited = self._limited(owner_id, chunks)
        first = await anext(limited, b"")
        return _chained(first, limited)

    async def _limited(self, owner_id: UUID, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async with self._limiter.acquire(owner_id):
            async for chunk in chunks:
                yield chunk


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
