"""What every confined process has in common: how it is started and ended, and what it may die of."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGXCPU
from typing import Any

from app.processors.base import Permanent, ProcessingError, Transient

ROOT = Path(__file__).parents[2]
PROGRAM = f"import sys; sys.path.append({str(ROOT)!r}); from app.processors import sandbox; sandbox.main()"

# Every confined process can fail so. The code is the processor's name and one of these.
_FAILURES = {
    "out-of-memory": "Reading the document takes more memory than allowed.",
    "timeout": "Reading the document takes longer than allowed.",
    "crashed": "Reading the document crashed the reader.",
    "too-large": "Reading the document gives more output than allowed.",
}
# PDFium aborts when it runs out of memory, and traps when it finds a bug of its own.
_SIGNALS: dict[int, str] = {SIGXCPU: "timeout", SIGABRT: "out-of-memory"}
# A document does not cause these: an operator, a service manager, or the kernel short of memory sends them.
_OUTSIDE = {SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """A process that can compute and nothing else.

    It has no environment, no network and no other processes, writes no file, and reads none but the code that is
    installed and `readable`. See `app/processors/sandbox` for how. It may use `memory` bytes (which macOS does not
    enforce), `cpu_seconds` of processor time and `seconds` of wall-clock time. `failures` are codes of its own.
    """

    name: str
    failures: Mapping[str, str] = field(default_factory=dict)
    memory: int = 512 * 1024**2
    cpu_seconds: int = 60
    seconds: float = 120
    readable: tuple[Path, ...] = ()

    async def start(self, launch: Mapping[str, Any], document: Path | None, limit: int) -> Process:
        """Start it with what the sandbox is to launch. The document is its standard input; without one, a pipe is.
        `limit` is the longest line of its output, in bytes. Raises Transient."""
        limits = {
            "parent": os.getpid(),
            "memory": self.memory,
            "cpu_seconds": self.cpu_seconds,
            "readable": [str(path) for path in self.readable],
        }
        try:
            with document.open("rb") if document else nullcontext(PIPE) as stdin:
                return await create_subprocess_exec(
                    *(sys.executable, "-I", "-B", "-c", PROGRAM, json.dumps(limits | dict(launch))),
                    stdin=stdin,
                    stdout=PIPE,
                    stderr=DEVNULL,
                    env={},  # the environment may hold secrets
                    cwd="/",
                    start_new_session=True,  # a process group that can be killed as one
                    limit=limit,
                )
        except OSError as error:
            raise self.unavailable("No process could be started to read the document.") from error

    def died(self, returncode: int) -> ProcessingError:
        """Return the error for one that ended without a result. A negative return code is the signal's number."""
        if returncode >= 0 or -returncode in _OUTSIDE:
            return self.unavailable("The process that read the document was ended.")
        return self.permanent(_SIGNALS.get(-returncode, "crashed"))

    def permanent(self, failure: str) -> Permanent:
        """Return the error for a code of `failures`, or for one that every confined process has."""
        if failure in self.failures:
            return Permanent(failure, self.failures[failure])
        known = failure if failure in _FAILURES else "crashed"
        return Permanent(f"{self.name}-{known}", _FAILURES[known])

    def unavailable(self, detail: str) -> Transient:
        """Return the error for what no document causes."""
        return Transient(f"{self.name}-unavailable", detail)


async def end(process: Process) -> None:
    """Kill its process group, drain its pipe (waiting for the exit alone can hang), and reap it, cancelled or not."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies may not be killed
        os.killpg(process.pid, SIGKILL)
    reaping = asyncio.ensure_future(process.communicate())
    try:
        await asyncio.shield(reaping)
    except asyncio.CancelledError:
        await reaping
        raise
