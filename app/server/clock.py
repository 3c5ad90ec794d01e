"""The one deadline of a connection."""

import asyncio
from collections.abc import Callable
from math import inf


class Clock:
    """Calls `expired` once the time is up that was set last.

    Setting it again costs no timer unless the new deadline is the earlier one: a request sets it several times.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._deadline = inf
        self._rings_at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Expire in so many seconds, whatever was set before."""
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._rings_at:
            self._start()

    def stop(self) -> None:
        """Never expire."""
        if self._timer is not None:
            self._timer.cancel()
        self._deadline = self._rings_at = inf

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._deadline
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._rings_at = inf
        if self._loop.time() < self._deadline:
            self._start()
        else:
            self._expired()
