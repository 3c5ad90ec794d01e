"""Measures how late the event loop is, and logs what blocks it and for how long."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from app.telemetry import metrics

log = structlog.get_logger()

_INTERVAL = 0.25  # seconds between two beats of the loop, and between two looks at them
_LIMIT = 1.0  # seconds without a beat that are logged

_Describe = Callable[[asyncio.Task[Any] | None], Mapping[str, Any]]


class LoopWatch:
    """A thread that watches the event loop from outside: while the loop is blocked, nothing in it can tell."""

    def __init__(self, describe: _Describe) -> None:
        """`describe` gives the log line's keys for the task that the loop has been running since."""
        self._describe = describe
        self._beat = 0.0
        self._reported = 0.0  # the last beat before the loop was blocked
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Watch the running loop until cancelled."""
        loop = asyncio.get_running_loop()
        self._beat = time.monotonic()
        thread = threading.Thread(target=self._watch, args=(loop,), name="loop-watch", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(_INTERVAL)
                before, self._beat = self._beat, time.monotonic()
                metrics.loop_lag.observe(max(0.0, self._beat - before - _INTERVAL))
                if self._reported == before:
                    log.warning("event_loop.resumed", seconds=round(self._beat - before, 2))
        finally:
            self._stopped.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        looked_at, busy_at = time.monotonic(), time.process_time()
        while not self._stopped.wait(_INTERVAL):
            waited, worked = time.monotonic() - looked_at, time.process_time() - busy_at
            looked_at, busy_at = time.monotonic(), time.process_time()
            # This thread waited, too: either something kept the interpreter to itself, or the process was paused.
            paused = waited > _LIMIT and worked < waited / 2
            beat = self._beat
            seconds = looked_at - beat
            if seconds > _LIMIT and self._reported != beat and not paused:
                self._reported = beat
                at_work = self._describe(asyncio.current_task(loop))
                log.warning("event_loop.blocked", seconds=round(seconds, 2), **at_work)
