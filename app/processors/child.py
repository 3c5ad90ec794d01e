"""A confined child process, for any processor that parses untrusted files: parsers crash, hang, use memory and can be
exploited."""

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import structlog
from pydantic import BaseModel, Field, ValidationError

from app.processors.base import LongText, Permanent, ProcessingError, Report, Transient
from app.processors.confined import ROOT, Confined, end

MAX_LINES = 1000  # lines of output besides those of text; a child reports progress at most a hundred times
MAX_FILES = 1000  # that a child hands over
MAX_TASK = 64 * 1024  # characters; the system takes 128 KiB
MAX_RETURNED = 16 * 1024**2  # bytes of JSON that a function returns
_PIECE = 32 * 1024  # characters that a line of text has at least, but for the last; bytes that one of a file has

log = structlog.get_logger()

R = TypeVar("R", bound=BaseModel)

OnFile = Callable[[dict[str, Any], AsyncIterator[bytes]], Awaitable[None]]
"""Takes what a child tells of a file, and its bytes. Raises ValidationError if that is not what it should tell."""


class _Line(BaseModel, Generic[R], extra="forbid", strict=True, val_json_bytes="base64"):
    """One line of a child's output. Anything else is refused, because a document may have exploited the child."""

    progress: float | None = Field(None, ge=0, le=1)
    text: str = Field("", pattern=r"^[^\x00]*$")
    file: dict[str, Any] | None = None
    data: bytes | None = None
    error: str | None = None
    result: R | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinedChild(Confined, Generic[R]):
    """Runs `main(task)` of a module in a process of its own, which can compute and nothing else.

    The document is its standard input. Its output is JSON lines: `{"progress": 0.5}` now and then, `{"text": "…"}` for
    each piece of a long text, and at the end `{"result": {…}}`, of the model `result`, or `{"error": code}`, a code of
    `failures` or `out-of-memory`. A file that it makes is a line `{"file": {…}}` with what it tells of it, then
    `{"data": "…"}` for each piece of it in Base64, and one with an empty piece at its end.

    Of code it reads what is installed and the package that the module is in. Installed are the packages of this Python;
    PYTHONPATH does not count. The module, and what it imports, is imported in that process only.

    With a `function`, that is called in the place of `main`, and prints nothing itself: see `call`. It has one thread,
    unless a task is run with `threads`.
    """

    module: str
    result: type[R]
    function: str | None = None

    async def run(
        self,
        document: Path,
        task: Mapping[str, Any],
        report: Report,
        *,
        max_line: int,
        text: LongText | None = None,
        on_file: OnFile | None = None,
        threads: bool = False,
        others: tuple[Path, ...] = (),
    ) -> R:
        """Return the result of a task, which JSON can represent, for a document. A line has at most `max_line` bytes.
        `text` collects the pieces of text, of some 32,000 to 64,000 characters each. `on_file` is called for each file,
        of up to MAX_FILES; the child waits until it has read it to its end. `threads`: the child may start some, which
        are confined as it is. `others` are more files that it may read in this run.

        Raises Permanent with a code of `failures` or with `<name>-out-of-memory`, `-timeout`, `-crashed` or
        `-too-large`. Raises Transient `<name>-unavailable` if the child cannot be started or was killed from outside.
        Nothing of the child is left when this returns, raises or is cancelled.
        """
        child = await self._start(document, task, max_line, threads=threads, others=others)
        try:
            async with asyncio.timeout(self.seconds):
                return await self._listen(child, report, text or LongText(0), on_file)
        except TimeoutError:
            raise self.permanent("timeout") from None
        finally:
            await end(child)

    async def _start(
        self, document: Path, task: Mapping[str, Any], max_line: int, *, threads: bool, others: tuple[Path, ...]
    ) -> Process:
        launch = {
            "module": self.module,
            "function": self.function,
            "root": str(_root(self.module)),
            "threads": threads,
            "readable": [str(path) for path in (*self.readable, *others)],
            "task": task,
        }
        return await self.start(launch, document, max_line)

    async def _listen(self, child: Process, report: Report, text: LongText, on_file: OnFile | None) -> R:
        """Read the child's output up to its result. Raises Permanent or Transient for what it reports or died of."""
        files = MAX_FILES if on_file else 0
        for _ in range(MAX_LINES + text.limit // _PIECE + files):
            line = await self._next(child, text)
            if line.result is not None:
                return line.result
            if line.progress is not None:
                report(line.progress)
            if line.file is not None and on_file and files:
                files -= 1
                await self._hand_over(line.file, child, on_file)
            elif line.file is not None or line.data is not None:
                break
        raise self.permanent("crashed")

    async def _hand_over(self, told: dict[str, Any], child: Process, on_file: OnFile) -> None:
        async with aclosing(self._pieces(child)) as pieces:
            try:
                await on_file(told, pieces)
            except ValidationError:
                raise self.permanent("crashed") from None

    async def _pieces(self, child: Process) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file. Raises as `_listen` does."""
        is_last = False
        while data := (await self._next(child, LongText(0))).data:
            if is_last:
                raise self.permanent("crashed")
            is_last = len(data) < _PIECE
            yield data
        if data is None:
            raise self.permanent("crashed")

    async def _next(self, child: Process, text: LongText) -> _Line[R]:
        """Return the next line of the child's output. Raises as `_listen` does."""
        assert child.stdout is not None
        try:
            output = await child.stdout.readline()
        except ValueError:
            raise self.permanent("too-large") from None
        if not output.endswith(b"\n"):
            raise self.died(await child.wait())
        try:
            line = await asyncio.to_thread(self._parse, output, text)
        except ValidationError:
            raise self.permanent("crashed") from None
        if text.characters > text.limit:
            raise self.permanent("too-large")
        if line.error is not None:
            raise self.permanent(line.error)
        return line

    def _parse(self, output: bytes, text: LongText) -> _Line[R]:
        """Validate a line, and add its text. Raises ValidationError."""
        line: _Line[R] = _Line[self.result].model_validate_json(output)  # type: ignore[name-defined]
        if line.text:
            text.append(line.text)
        return line

    def failure(self, raised: "_Raised") -> ProcessingError:
        """Return the error for what a function raised in the child. What it did not mean to raise is logged."""
        if raised.kind in ("Permanent", "Transient"):
            return (Permanent if raised.kind == "Permanent" else Transient)(raised.code, raised.detail)
        log.warning("child.raised", child=self.name, error=raised.code, detail=raised.detail)
        if raised.kind == "ImportError":  # the installation is broken, not the document
            return self.unavailable("The code that reads the document is not installed.")
        return self.permanent("crashed")


class _Raised(BaseModel, extra="forbid", strict=True):
    kind: Literal["Permanent", "Transient", "ImportError", "Exception"]
    code: str = Field(max_length=100)
    detail: str = Field(max_length=2000)


class Called(BaseModel, extra="forbid", strict=True):
    """What a function returned or raised."""

    value: Any = None
    raised: _Raised | None = None


async def call(
    function: str,
    document: Path,
    params: Mapping[str, Any] | None = None,
    *,
    seconds: float = 120,
    cpu_seconds: int = 60,
    memory: int = 512 * 1024**2,
    readable: tuple[Path, ...] = (),
) -> Any:
    """Call `package.module:function` in a ConfinedChild, with the document as an open binary file and the params as
    keyword arguments, of at most 64 KiB of JSON; return what it returns, which JSON can represent.

    The limits, and what the child can read, are those of a ConfinedChild; `readable` is what the function opens by
    name, such as a model. Raises what a ConfinedChild raises, with codes that begin with the function's name, and the
    Permanent or Transient that the function raises. Any other exception is logged, and Permanent `<function>-crashed`:
    nothing from outside can have caused it. ModuleNotFoundError and ValueError are the caller's own mistakes.
    """
    module, _, name = function.partition(":")
    if not name:
        raise ValueError(f"{function} is no package.module:function")
    child = ConfinedChild(
        name=name.strip("_").replace("_", "-"),
        module=module,
        function=name,
        result=Called,
        memory=memory,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        readable=(ROOT / "app", *readable),
    )
    task = dict(params or {})
    if len(json.dumps(task)) > MAX_TASK:
        raise ValueError("the params of a call are too long")
    called = await child.run(document, task, _ignore, max_line=MAX_RETURNED)
    if called.raised:
        raise child.failure(called.raised)
    return called.value


def _ignore(progress: float) -> None:
    """A function that is called reports no progress."""


def _root(module: str) -> Path:
    """Return the folder that the module is found in. Imports the packages that it is in, and not the module."""
    spec = find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert spec.origin is not None, f"{module} is no file"
    return Path(spec.origin).resolve().parents[module.count(".")]
