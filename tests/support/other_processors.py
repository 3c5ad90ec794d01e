"""`python -m app` with processors of a test's own: those that PROCESSORS_OF_TEST names, each as `name@version`."""

import asyncio
import os
import runpy
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.jobs import rescuer
from app.processors.base import LongList, LongText, Params, Permanent, Report, Source
from app.server import lifespan
from app.wiring import adapters, gauges

VARIABLE = "PROCESSORS_OF_TEST"

Fault = Literal[
    "datetime",
    "set",
    "list",
    "nan",
    "large",
    "key",
    "surrogate",
    "deep",
    "exit",
    "interrupt",
    "child-exit",
    "big",
    "misfit",
    "misfit-item",
    "misfit-beside-long",
    "detail",
    "block",
    "cancel",
    "deaf",
]


class FaultyParams(Params):
    fault: Fault | None = None
    seconds: float = 0


class Anything(BaseModel, extra="allow"):
    """No two of them have the same fields."""


class Item(BaseModel):
    number: int


class Made(BaseModel, extra="allow"):
    name: str = ""
    text: Annotated[str, Field(max_length=5)] = ""  # of a LongText, that is not checked
    items: list[Item] = []


class Processor:
    """Returns its name and version, or does what no processor should."""

    description = "For tests."
    at_once = None
    params = FaultyParams
    result = Made

    def __init__(self, spec: str) -> None:
        self.name, _, self.version = spec.partition("@")

    async def run(self, source: Source, params: FaultyParams, report: Report) -> dict[str, Any]:
        await asyncio.sleep(params.seconds)
        match params.fault:
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "child-exit":
                async with asyncio.TaskGroup() as group:
                    group.create_task(_exit())
            case "detail":
                raise Permanent("odd\0code", "\ud800" * 10_000)
            case "block":
                time.sleep(2)  # noqa: ASYNC251 - this is the fault
            case "cancel":
                raise asyncio.CancelledError
            case "deaf":
                await _deaf()
        return OUTPUTS[params.fault]() if params.fault in OUTPUTS else {"name": self.name, "version": self.version}


class ReaderParams(Params):
    of: str = "nobody"


class Reader:
    """Returns what it knows of its PDF, and what another has made of it."""

    name = "reader"
    version = "1"
    description = "For tests."
    at_once = 1
    content_types = ("application/pdf",)
    params = ReaderParams
    result = Anything

    async def run(self, source: Source, params: ReaderParams, report: Report) -> dict[str, Any]:
        ids = {name: str(getattr(source, name)) for name in ("document_id", "owner_id", "job_id")}
        stated = {"filename": source.filename, "metadata": source.metadata}
        return ids | stated | {"earlier": await source.result(params.of)}


async def _exit() -> None:
    sys.exit(3)


async def _deaf() -> None:
    """Go on for a minute, whoever cancels it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


def _nested(levels: int) -> dict[str, Any]:
    return {"inner": _nested(levels - 1) if levels else None}


def _long(word: str, times: int) -> LongText:
    text = LongText(1_000_000)
    text.append(word * times)
    return text


OUTPUTS: dict[str | None, Any] = {
    "datetime": lambda: {"at": datetime.now(UTC)},
    "set": lambda: {"words": {"a", "b"}},
    "list": lambda: ["a"],
    "nan": lambda: {"share": float("nan")},
    "large": lambda: {"text": "x" * 60_000_000},
    "key": lambda: {(1, 2): "a"},
    "surrogate": lambda: {"text": "\ud800"},
    "deep": lambda: _nested(200),
    "big": lambda: {"text": _long("letters ", 20_000), "items": LongList(lambda: ({"number": 1} for _ in range(9)))},
    "misfit": lambda: {"name": 3},
    "misfit-item": lambda: {"items": LongList(lambda: iter([{"number": 1}, {"number": "one"}]))},
    "misfit-beside-long": lambda: {"text": _long("letters ", 20_000), "name": 3},
}


def _of(spec: str) -> Processor | Reader:
    return Reader() if spec == "reader" else Processor(spec)


if __name__ == "__main__":
    rescuer.UNSERVED_SECONDS = gauges.UNSERVED_SECONDS = 1.0
    lifespan.EXIT_SECONDS = 3.0
    adapters.available = lambda _: tuple(map(_of, os.environ[VARIABLE].split()))
    runpy.run_module("app", run_name="__main__", alter_sys=True)
