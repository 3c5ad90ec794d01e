"""Threads of a storage's own: waiting for disks must not occupy the default pool, which others compute in."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec

from app.storage.base import T

P = ParamSpec("P")


class Threads:
    """A pool of eight threads for one storage."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="storage")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread. The call goes on if its caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Accept no more calls; those in progress go on."""
        self._pool.shutdown(wait=False)
