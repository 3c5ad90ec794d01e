"""Password hashes: argon2id through passlib's API, off the event loop, two at a time.

A hash takes 46 MiB and a core for tens of milliseconds. More at once would only slow down each other and all other
requests.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from passlib.hash import argon2

from app.errors import TooBusy
from app.limiter import Limiter, Threads
from app.web.client import client_key

MAX_WAIT = 2.0  # seconds

# OWASP Password Storage Cheat Sheet: argon2id, m=46 MiB, t=1, p=1.
ARGON2 = argon2.using(type="ID", memory_cost=46 * 1024, time_cost=1, parallelism=1)


def _dummy_hash() -> str:
    """A hash that no password matches, because its checksum is random. Verifying it takes as long as any other."""
    return str(ARGON2(use_defaults=True, checksum=os.urandom(ARGON2.checksum_size)).to_string())


class PasswordHasher:
    """Hashes and verifies passwords in `threads` threads of its own.

    The threads are dealt by the client's address. What cannot begin within MAX_WAIT seconds is refused: a queue that
    strangers can make longer would be everybody's. Whoever leaves meanwhile is not hashed for (see `unless_gone`).
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads = Threads(threads, "passwords", low_priority=True)
        # One more than threads: one address alone can keep all threads busy, and another's turn is the next.
        self._limiter = Limiter(threads + 1, MAX_WAIT)
        self._dummy = _dummy_hash()

    async def hash(self, password: str) -> str:
        """The argon2id hash, with a new salt, in the PHC string format. Raises TooBusy."""
        async with self._turn():
            return str(await self._threads.run(ARGON2.hash, password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether the password matches. Without a hash (no such user) it takes as long and is False. Raises TooBusy."""
        async with self._turn():
            matches = await self._threads.run(ARGON2.verify, password, hashed or self._dummy)
        return bool(matches) and hashed is not None

    def close(self) -> None:
        """Cancel what has not started; do not wait for the rest."""
        self._threads.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(MAX_WAIT):
                    await stack.enter_async_context(self._limiter.acquire(client_key()))
            except TimeoutError:
                raise TooBusy from None
            yield
