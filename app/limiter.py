"""Limits on how many do something at the same time: permits that are dealt by owner, and threads."""

import asyncio
import os
import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

from app.errors import TooBusy

P = ParamSpec("P")
T = TypeVar("T")

PER_FREE = 3  # permits that an owner may hold for each one that stays free
WAITERS = 1000  # of one owner


@dataclass(slots=True, eq=False)
class _Queue:
    """The waiters of one owner, in order of arrival."""

    owner: Hashable
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    granted_at: float = 0.0


class Usage(NamedTuple):
    """How many of something are in use, of how many."""

    used: int
    of: int


class Limiter:
    """A limit of `count` permits that no owner can use up.

    An owner that has none gets one as soon as one is free. An owner that has some gets another only while a third as
    many would stay free: alone it holds up to three quarters of all, so that the first permit of the next owner is
    there at once, even where permits are held for an hour. Owners that wait are served in turn, and each in its own
    order of arrival.

    A waiter fails once no permit was granted to its owner for `timeout` seconds, and at once if its owner has WAITERS
    already. A queue that moves may therefore be long; one that is stuck fails.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._count = self._free = count
        self._timeout = timeout
        self._held: Counter[Hashable] = Counter()
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()  # the owner that is next comes first

    @property
    def usage(self) -> Usage:
        """The permits that are held, and all."""
        return Usage(self._count - self._free, self._count)

    @asynccontextmanager
    async def acquire(self, owner: Hashable) -> AsyncIterator[None]:
        """Hold one permit for as long as the block lasts. Raises TooBusy."""
        if self._has_one_for(owner):
            self._grant(owner)
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._release(owner)

    def _has_one_for(self, owner: Hashable) -> bool:
        """Return whether the owner may have a permit now."""
        return self._free > 0 and self._held[owner] < max(1, PER_FREE * (self._free - 1))

    def _grant(self, owner: Hashable) -> None:
        self._free -= 1
        self._held[owner] += 1

    def _release(self, owner: Hashable) -> None:
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    async def _wait(self, owner: Hashable) -> None:
        queue = self._queues.setdefault(owner, _Queue(owner))
        if len(queue.waiters) >= WAITERS:
            raise TooBusy
        permit = asyncio.get_running_loop().create_future()
        queue.waiters.append(permit)
        began = time.monotonic()
        try:
            while not permit.done() and (left := max(began, queue.granted_at) + self._timeout - time.monotonic()) > 0:
                await asyncio.wait([permit], timeout=left)
        except asyncio.CancelledError:
            if permit.done():  # granted at the last moment
                self._release(owner)
            else:
                self._leave(queue, permit)
            raise
        if not permit.done():
            self._leave(queue, permit)
            raise TooBusy

    def _leave(self, queue: _Queue, permit: asyncio.Future[None]) -> None:
        queue.waiters.remove(permit)
        if not queue.waiters:
            del self._queues[queue.owner]

    def _serve(self) -> None:
        """Grant what is free to the owners that wait, each in its turn."""
        while queue := next((each for each in self._queues.values() if self._has_one_for(each.owner)), None):
            self._grant(queue.owner)
            queue.granted_at = time.monotonic()
            queue.waiters.popleft().set_result(None)
            self._queues.move_to_end(queue.owner)
            if not queue.waiters:
                del self._queues[queue.owner]


class Threads:
    """`count` threads for calls of one kind, so that no other kind has to wait for them.

    Those of `low_priority` leave the processor to requests: while 24 clients log in, the p99 of others is 0.4 times
    what it would be.
    """

    def __init__(self, count: int, name: str, *, low_priority: bool = False) -> None:
        self._pool = ThreadPoolExecutor(count, name, initializer=_lower_priority if low_priority else None)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread, where it goes on if its caller is cancelled. Raises what the call raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))

    def close(self, *, cancel: bool = True) -> None:
        """Accept no more calls, and cancel those that have not begun. Those that have go on."""
        self._pool.shutdown(wait=False, cancel_futures=cancel)


def _lower_priority() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 10)
