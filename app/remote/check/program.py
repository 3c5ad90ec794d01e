"""The worker under test, as a process of ours."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from app.client.calls import Stopped

_EXIT_SECONDS = 5.0  # that it may take to stop


class Program:
    """Runs a command, if there is one: again when it has ended. What it prints goes to stderr."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.has_ended = False  # and was started again

    @property
    def exit_code(self) -> int | None:
        """If it has ended."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start it, unless it runs. Raises Stopped."""
        if not self._command or (self._process and self.exit_code is None):
            return
        self.has_ended = self._process is not None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=sys.stderr, start_new_session=True
            )
        except OSError as error:
            raise Stopped(f"cannot start the worker: {self._command[0]}: {error.strerror}") from None

    async def stop(self) -> None:
        """Stop it, with the processes that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process is None:
                return
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _EXIT_SECONDS)
