"""Threads of a storage's own: it waits for disks, and that must not take the threads that others compute in."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec

from app.storage.base import T

P = ParamSpec("P")


class Threads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="storage")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call. It goes on when its caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Take no more calls; those under way go on."""
        self._pool.shutdown(wait=False)
