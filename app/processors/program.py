"""A confined program: one that is installed, of any language, which reads what untrusted files have become."""

import asyncio
import os
from asyncio import IncompleteReadError
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.processors.confined import Confined, end


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinedProgram(Confined):
    """Runs the program at `path`, which reads standard input and writes standard output, confined before it begins.

    It has one thread, and no environment but `environment`. Of the programs of this system it can execute only itself,
    and all that it loads must be where the system's libraries are, or in `readable`.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    async def run(self, arguments: Sequence[str], given: bytes, *, max_output: int) -> bytes:
        """Return what it writes for what it is given: at most `max_output` bytes.

        Raises Permanent `<name>-out-of-memory`, `-timeout`, `-crashed` (it also exits with a status other than 0) or
        `-too-large`. Raises Transient `<name>-unavailable` if it cannot be started or was killed from outside. Nothing
        of it is left when this returns, raises or is cancelled.
        """
        command = [str(self.path), *arguments]
        process = await self.start({"command": command, "environment": dict(self.environment)}, None, max_output)
        try:
            async with asyncio.timeout(self.seconds):
                return await self._exchange(process, given, max_output)
        except TimeoutError:
            raise self.permanent("timeout") from None
        finally:
            await end(process)

    async def _exchange(self, process: Process, given: bytes, max_output: int) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(given)
        process.stdin.close()  # once all is written
        try:
            await process.stdout.readexactly(max_output + 1)
        except IncompleteReadError as ended:
            status = await process.wait()
            if status > 0 and status != os.EX_OSERR:
                raise self.permanent("crashed") from None
            if status:
                raise self.died(status) from None
            return ended.partial
        raise self.permanent("too-large")
