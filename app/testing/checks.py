"""The contract of `app/processors/base.py`, checked on one processor by running it."""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from app.processing.contract import content_types, makes_files, violation
from app.processing.output import long_json, short_json
from app.processors.base import Params, Permanent, ProcessingError, Processor, Report, Source
from app.testing.outputs import CollectingOutputs
from app.testing.sources import source

T = TypeVar("T")

MAX_SECONDS = 600.0  # that a run may take
MAX_LAG = 0.25  # seconds that the event loop may be held up
MAX_STOP = 5.0  # seconds that a run may take to end when it is cancelled
_TICK = 0.01  # seconds


class Finding(NamedTuple):
    """What was checked, and what is wrong, or None."""

    check: str
    fault: str | None


class _Run(NamedTuple):
    """One run: what it returned or raised, what it reported, how long it took and held up the event loop."""

    data: object
    error: Exception | None
    progress: list[float]
    seconds: float
    lag: float


def check(
    processor: Processor,
    *files: Path,
    params: Mapping[str, Any] | None = None,
    max_result_bytes: int = 50 * 1024**2,
) -> Iterator[Finding]:
    """Run a processor on files, and yield a finding for each part of the contract. Call it where no event loop runs.

    It runs on each file, on its first half, and once more to be cancelled. Raises ValidationError for its `params`.
    """
    reason = violation(processor)
    yield Finding("what it states is complete", reason)
    if reason:
        return
    given = processor.params.model_validate(params or {})
    yield Finding("its version is the same each time", _fault_of_version(processor))
    yield Finding("unknown params are refused", _fault_of_params(processor))
    for file in files:
        checked = _of_file(processor, source(file), given, max_result_bytes)
        yield from (Finding(f"{file.name}: {what}", fault) for what, fault in checked)


def _fault_of_version(processor: Processor) -> str | None:
    try:
        version = type(processor)().version
    except TypeError:  # it takes arguments
        version = processor.version
    return None if version == processor.version else f"it was {processor.version}, and then {version}"


def _fault_of_params(processor: Processor) -> str | None:
    try:
        processor.params.model_validate({"there is no such param": 0})
    except ValidationError:
        return None
    return "they are accepted: its params are to be a subclass of Params, with its configuration"


def _of_file(processor: Processor, given: Source, params: Params, max_bytes: int) -> Iterator[Finding]:
    if given.content_type not in content_types(processor):
        yield Finding("it reads such files", f"its content_types lack {given.content_type}")
        return
    run = _complete(_run(processor, given, params))
    outcome = f" (it failed with {run.error.code})" if isinstance(run.error, ProcessingError) else ""
    yield Finding(f"it returns a result, or raises Permanent or Transient{outcome}", _fault_of_error(run))
    if run.error is None:
        yield Finding("the result is JSON, and fits its model", _fault_of_result(processor, run.data, max_bytes))
    yield Finding("progress is a number from 0 to 1", _fault_of_progress(run))
    lag = f"it was held up for {run.lag:.2f} s: what takes long belongs in a thread, or in a child process"
    yield Finding("the event loop is not blocked", lag if run.lag > MAX_LAG else None)
    with TemporaryDirectory() as folder:
        half = Path(folder, given.path.name)
        half.write_bytes(given.path.read_bytes()[: given.size // 2])
        damaged = _complete(_run(processor, replace(source(half), content_type=given.content_type), params))
    yield Finding("damaged, it returns a result, or raises Permanent or Transient", _fault_of_error(damaged))
    fault = _complete(_fault_of_cancelling(processor, given, params, after=min(run.seconds / 2, 1)))
    yield Finding("cancelled, it ends at once and leaves no process", fault)


def _complete(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in a loop of its own that does not wait for what goes on after that."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def _begun(processor: Processor, given: Source, params: Params, report: Report) -> Coroutine[Any, Any, dict[str, Any]]:
    """A run, with Outputs if the processor takes them."""
    taken = (CollectingOutputs(),) if makes_files(processor) else ()
    return processor.run(given, params, report, *taken)


async def _run(processor: Processor, given: Source, params: Params) -> _Run:
    progress, lag = list[float](), [0.0]
    data, error = None, None
    ticking = asyncio.create_task(_watch(lag))
    await asyncio.sleep(_TICK)
    began = time.monotonic()
    try:
        async with asyncio.timeout(MAX_SECONDS):
            data = await _begun(processor, given, params, progress.append)
    except Exception as caught:  # noqa: BLE001 - it may raise anything
        error = caught
    seconds = time.monotonic() - began
    await asyncio.sleep(2 * _TICK)
    ticking.cancel()
    return _Run(data, error, progress, seconds, lag[0])


async def _watch(lag: list[float]) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(_TICK)
        lag[0] = max(lag[0], time.monotonic() - before - _TICK)


def _fault_of_error(run: _Run) -> str | None:
    if run.error is None or isinstance(run.error, ProcessingError):
        return None
    return f"it raised {type(run.error).__name__}: {run.error}"


def _fault_of_result(processor: Processor, data: object, max_bytes: int) -> str | None:
    limit = min(getattr(processor, "max_result_bytes", None) or max_bytes, max_bytes)
    try:
        if short_json(data, processor.result, limit) is None:
            for _ in long_json(data, processor.result, limit):
                pass
    except Permanent as error:
        return error.detail
    return None


def _fault_of_progress(run: _Run) -> str | None:
    wrong = [each for each in run.progress if not (isinstance(each, int | float) and 0 <= each <= 1)]
    return f"it reported {wrong[0]!r}" if wrong else None


async def _fault_of_cancelling(processor: Processor, given: Source, params: Params, *, after: float) -> str | None:
    before = children()
    work = asyncio.create_task(_begun(processor, given, params, lambda _: None))
    await asyncio.wait([work], timeout=after)
    work.cancel()
    done, _ = await asyncio.wait([work], timeout=MAX_STOP)
    if not done:
        return f"it went on for {MAX_STOP:.0f} s"
    work.cancelled() or work.exception()
    left = children() - before
    return f"it left {len(left)} child process(es)" if left else None


def children() -> set[str]:
    """The ids of this process's children, as far as the system tells."""
    lists = Path("/proc/self/task").glob("*/children")
    return {each for path in lists for each in path.read_text().split()}
