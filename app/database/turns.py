"""Turns at something of which there is only so much, given in the order in which they were asked for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal


class Turns:
    """`count` of them at once. Who waits goes on waiting while the queue moves: it is given up only when nobody has
    given a turn back for `patience` seconds."""

    def __init__(self, count: int, patience: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._patience = patience
        self._moved_at = 0.0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises TimeoutError."""
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._moved_at = time.monotonic()
            self._free.release()

    async def _wait(self) -> None:
        asked_at = time.monotonic()
        turn = asyncio.create_task(self._free.acquire())
        try:
            while not turn.done() and (left := max(asked_at, self._moved_at) + self._patience - time.monotonic()) > 0:
                await asyncio.wait([turn], timeout=left)
        except asyncio.CancelledError:
            self._give_up(turn)
            raise
        if not turn.done():
            self._give_up(turn)
            raise TimeoutError

    def _give_up(self, turn: asyncio.Task[Literal[True]]) -> None:
        if not turn.cancel():  # it came at the last moment
            self._free.release()
