"""Password hashes: argon2id through passlib's API, off the event loop, two at a time.

Each hash takes 46 MiB and a core for tens of milliseconds; more at once would only make all of them, and everybody
else, slower.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from passlib.hash import argon2

T = TypeVar("T")

# OWASP Password Storage Cheat Sheet: argon2id, m=46 MiB, t=1, p=1.
ARGON2 = argon2.using(type="ID", memory_cost=46 * 1024, time_cost=1, parallelism=1)


def _hash(password: str) -> str:
    return str(ARGON2.hash(password))


class PasswordHasher:
    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._dummy = self._threads.submit(_hash, "nobody's password")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: _hash(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether the password fits. With no hash (no such user) it takes as long and is False."""
        return await self._run(lambda: self._verify(password, hashed))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, hashed: str | None) -> bool:
        fits = bool(ARGON2.verify(password, hashed or self._dummy.result()))
        return fits and hashed is not None

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
