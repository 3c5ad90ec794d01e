"""Extracts text and metadata in a child process, because parsers of untrusted files may crash, hang or be exploited."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from signal import SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGXCPU
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from app.processors.base import Params, Permanent, ProcessingError, Report, Source, Transient

_SCRIPT = Path(__file__).with_name("text_child.py")
MAX_LINES = 1000  # lines of output; the child reports progress at most a hundred times
_OVERHEAD = 128 * 1024  # bytes of output besides the text; metadata takes at most a quarter of them

FAILURES = {
    "password-protected": "The document opens only with a password.",
    "malformed-document": "The document is damaged.",
    "text-out-of-memory": "Reading the document takes more memory than allowed.",
    "text-timeout": "Reading the document takes longer than allowed.",
    "text-crashed": "Reading the document crashed the reader.",
    "text-too-large": "Reading the document gives more output than allowed.",
}
# PDFium aborts when it runs out of memory, and traps when it finds a bug of its own.
_SIGNALS: dict[int, str] = {SIGXCPU: "text-timeout", SIGABRT: "text-out-of-memory"}
# A document does not cause these: an operator, a service manager, or the kernel short of memory sends them.
_OUTSIDE = {SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM}

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class TextParams(Params):
    """How much of a document is read."""

    max_characters: int = Field(1_000_000, ge=1, le=10_000_000, description="Text beyond this is cut off.")
    max_pages: int = Field(10_000, ge=1, le=100_000, description="Pages of a PDF beyond this are not read.")


class Extract(BaseModel, extra="forbid", strict=True):
    """What the child found. `pages` is None for DOCX; `truncated` says that text was cut off."""

    text: Text
    pages: int | None
    truncated: bool
    metadata: dict[Text, Text]


class Line(BaseModel, extra="forbid", strict=True):
    """One line of the child's output. Anything else is refused, because a document may have exploited the child."""

    progress: float = Field(0, ge=0, le=1)
    error: Literal["password-protected", "malformed-document", "text-out-of-memory"] | None = None
    result: Extract | None = None


class TextProcessor:
    """Data: `{"text", "pages", "characters", "truncated", "metadata"}`.

    Form feeds in `text` separate the pages of a PDF; `pages` is null for DOCX. `metadata` has those of title, author,
    subject, keywords, creator, producer, created and modified (RFC 3339, UTC) that the document states.

    Raises Permanent with a code of FAILURES, or Transient `text-unavailable` if the child cannot be started or was
    killed from outside. A child may use `memory` bytes (which macOS does not enforce), `cpu_seconds` of processor time
    and `seconds` of wall-clock time.
    """

    name = "text"
    version = "1"
    at_once = max(4, os.cpu_count() or 1)
    params = TextParams

    def __init__(
        self, *, memory: int = 512 * 1024**2, cpu_seconds: int = 60, seconds: float = 120, script: Path = _SCRIPT
    ) -> None:
        self._memory = memory
        self._cpu_seconds = cpu_seconds
        self._seconds = seconds
        self._script = script

    async def run(self, source: Source, params: TextParams, report: Report) -> dict[str, Any]:
        child = await self._start(source, params)
        try:
            async with asyncio.timeout(self._seconds):
                extract = await _listen(child, report)
        except TimeoutError:
            raise _permanent("text-timeout") from None
        finally:
            await _end(child)
        return extract.model_dump() | {"characters": len(extract.text)}

    async def _start(self, source: Source, params: TextParams) -> Process:
        task = {
            "memory": self._memory,
            "seconds": self._cpu_seconds,
            "parent": os.getpid(),
            "content_type": source.content_type,
            "characters": params.max_characters,
            "pages": params.max_pages,
        }
        try:
            with source.path.open("rb") as document:
                return await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-B", self._script, json.dumps(task)),
                    stdin=document,
                    stdout=PIPE,
                    stderr=DEVNULL,
                    env={},  # the environment may hold secrets
                    cwd="/",
                    start_new_session=True,  # a process group that can be killed as one
                    limit=4 * params.max_characters + _OVERHEAD,
                )
        except OSError as error:
            raise Transient("text-unavailable", "No process could be started to read the document.") from error


async def _listen(child: Process, report: Report) -> Extract:
    """Read the child's output up to its result. Raises Permanent or Transient for what it reports or died of."""
    assert child.stdout is not None
    for _ in range(MAX_LINES):
        try:
            output = await child.stdout.readline()
        except ValueError:
            raise _permanent("text-too-large") from None
        if not output.endswith(b"\n"):
            raise _died(await child.wait())
        try:
            line = await asyncio.to_thread(Line.model_validate_json, output)
        except ValidationError:
            break
        if line.error is not None:
            raise _permanent(line.error)
        if line.result is not None:
            return line.result
        report(line.progress)
    raise _permanent("text-crashed")


async def _end(child: Process) -> None:
    """Kill the child's process group, drain its pipe (waiting for the exit alone can hang), and reap it."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies may not be killed
        os.killpg(child.pid, SIGKILL)
    await child.communicate()


def _died(returncode: int) -> ProcessingError:
    """Return the error for a child that ended without a result. A negative return code is the signal's number."""
    if returncode >= 0 or -returncode in _OUTSIDE:
        return Transient("text-unavailable", "The process that read the document was ended.")
    return _permanent(_SIGNALS.get(-returncode, "text-crashed"))


def _permanent(code: str) -> Permanent:
    return Permanent(code, FAILURES[code])
