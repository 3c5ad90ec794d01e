"""Waiting for what the worker does."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from app.remote.check.program import Program
from app.remote.check.proxy import Proxy
from app.remote.check.traffic import Call

T = TypeVar("T")

_TICK = 0.01  # seconds


class Broken(Exception):
    """The worker has broken a rule; the message says how."""


class Watch:
    """Sees what the worker calls, and waits `limit` seconds at most for what it is to do."""

    def __init__(self, proxy: Proxy, program: Program, limit: float) -> None:
        self.proxy = proxy
        self._program = program
        self._limit = limit

    def claims(self) -> list[Call]:
        """All that were made."""
        return [each for each in self.proxy.calls if each.kind == "claim"]

    def calls(self, *kinds: str, job_id: str = "") -> list[Call]:
        """Those of some kinds about a job: the one that was claimed last, unless another is named."""
        job_id = job_id or self.proxy.job_id
        return [each for each in self.proxy.calls if each.job_id == job_id and each.kind in kinds]

    async def until(
        self, condition: Callable[[], T | None], otherwise: Callable[[], str], limit: float | None = None
    ) -> T:
        """What the condition gives once it is true. Raises Broken."""
        deadline = time.monotonic() + (limit or self._limit)
        while not (value := condition()):
            if code := self._program.exit_code:
                raise Broken(f"{otherwise()}: it ended, with exit code {code}")
            if time.monotonic() > deadline:
                silent = self._program.has_ended and not self.proxy.calls
                raise Broken(f"{otherwise()}: its command ends, and has called nothing" if silent else otherwise())
            await self._program.start()  # again, if it takes one job only
            await asyncio.sleep(_TICK)
        return value
