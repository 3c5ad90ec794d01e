"""The checks for authors of processors: each finds what it is there for, and passes what is right."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

import app
from app.processors.base import LongList, Outputs, Params, Permanent, Report, Source
from app.testing import CollectingOutputs, check, source
from tests.unit.test_text_processor import linux_only

SAMPLE = Path(app.__file__).parent / "samples" / "sample.pdf"


class TheResult(BaseModel):
    found: list[dict[str, int]]


class Good:
    name = "good"
    version = "1"
    description = "For tests."
    at_once = None
    params: type[Params] = Params
    result = TheResult

    async def run(self, source: Source, params: Params, report: Report) -> dict[str, Any]:
        report(0.5)
        await asyncio.sleep(0.2)
        return {"found": LongList(lambda: iter([{"size": source.size}]))}


def faults(processor: Any, file: Path = SAMPLE, params: Mapping[str, Any] | None = None) -> dict[str, str]:
    findings = list(check(processor, file, params=params))
    return {what.removeprefix(f"{file.name}: "): fault for what, fault in findings if fault}


def test_what_is_right_passes() -> None:
    assert faults(Good()) == {}
    assert len(list(check(Good(), SAMPLE, SAMPLE))) == 3 + 2 * 6


class Incomplete(Good):
    description = ""


class Unsteady(Good):
    def __init__(self) -> None:
        self.version = str(time.monotonic_ns())


class Lax(Good):
    class params(Params):  # noqa: N801 - as the port has it
        model_config = ConfigDict(extra="ignore")


class Misfit(Good):
    async def run(self, *_: object) -> dict[str, Any]:
        return {"found": 3}


class NoJson(Good):
    async def run(self, *_: object) -> dict[str, Any]:
        return {"found": {1, 2}}


class Overdone(Good):
    async def run(self, source: Source, params: Params, report: Report) -> dict[str, Any]:
        report(50)
        return {"found": []}


class Blocking(Good):
    async def run(self, *_: object) -> dict[str, Any]:
        time.sleep(0.5)  # noqa: ASYNC251 - this is the fault
        return {"found": []}


class Brittle(Good):
    """Takes damaged files for its own mistake."""

    async def run(self, source: Source, params: Params, report: Report) -> dict[str, Any]:
        if source.size != SAMPLE.stat().st_size:
            raise KeyError("%%EOF")
        return {"found": []}


class Deaf(Good):
    async def run(self, *_: object) -> dict[str, Any]:
        ends = time.monotonic() + 0.4
        while time.monotonic() < ends:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                ends += 60
        return {"found": []}


class Leaving(Good):
    def __init__(self) -> None:
        self.left: list[subprocess.Popen[bytes]] = []

    async def run(self, *_: object) -> dict[str, Any]:
        self.left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))  # noqa: ASYNC220
        await asyncio.sleep(0.2)
        return {"found": []}


@pytest.mark.parametrize(
    ("kind", "what", "fault"),
    [
        (Incomplete, "what it states is complete", "its description is no text"),
        (Unsteady, "its version is the same each time", "it was "),
        (Lax, "unknown params are refused", "they are accepted: "),
        (Misfit, "the result is JSON, and fits its model", "The processor returned what does not fit"),
        (NoJson, "the result is JSON, and fits its model", "The processor returned what is no JSON object."),
        (Overdone, "progress is a number from 0 to 1", "it reported 50"),
        (Blocking, "the event loop is not blocked", "it was held up for 0."),
        (Brittle, "damaged, it returns a result, or raises Permanent or Transient", "it raised KeyError: "),
        (Deaf, "cancelled, it ends at once and leaves no process", "it went on for 5 s"),
    ],
)
def test_what_is_wrong_is_found(kind: type[Good], what: str, fault: str) -> None:
    found = faults(kind())
    assert list(found) == [what]
    assert found[what].startswith(fault)


@linux_only
def test_a_process_that_is_left_is_found() -> None:
    processor = Leaving()
    try:
        assert faults(processor) == {
            "cancelled, it ends at once and leaves no process": "it left 1 child process(es)",
        }
    finally:
        for each in processor.left:
            each.kill()
            each.wait()


def test_an_error_of_its_own_is_right_and_any_other_is_not() -> None:
    class Refusing(Good):
        async def run(self, *_: object) -> dict[str, Any]:
            raise Permanent("no-pages", "It has no pages.")

    class Broken(Good):
        async def run(self, *_: object) -> dict[str, Any]:
            raise ValueError("line 3")

    assert faults(Refusing()) == {}
    assert faults(Broken())["it returns a result, or raises Permanent or Transient"] == "it raised ValueError: line 3"


def test_files_that_it_does_not_read() -> None:
    class OfPdf(Good):
        content_types = ("application/pdf",)

    assert list(faults(OfPdf(), SAMPLE.with_suffix(".docx"))) == ["it reads such files"]


class Making(Good):
    async def run(self, source: Source, params: Params, report: Report, outputs: Outputs) -> dict[str, Any]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"%PDF"
            await asyncio.sleep(0.1)
            yield b"-1.7"

        made = await outputs.add_document("a.pdf", chunks(), {"folder": "f"})
        page = await outputs.add("page.png", "image/png", chunks())
        return {"found": [{"size": made.size + page.size}]}


def test_a_processor_that_makes_files_is_given_outputs() -> None:
    assert faults(Making()) == {}


async def test_outputs_for_tests() -> None:
    outputs = CollectingOutputs()
    await Making().run(source(SAMPLE), Params(), lambda _: None, outputs)
    document, page = outputs.collected
    assert (document.file.name, document.content, document.metadata) == ("a.pdf", b"%PDF-1.7", {"folder": "f"})
    assert (page.file.content_type, page.file.size, page.metadata) == ("image/png", 8, None)
    assert outputs.documents == [document]


async def test_a_source_for_tests() -> None:
    given = source(SAMPLE, attempt=2, metadata={"tags": ["a"]}, results={"text": {"text": "a"}})
    assert (given.filename, given.content_type, given.attempt) == ("sample.pdf", "application/pdf", 2)
    assert given.metadata == {"description": None, "folder": None, "tags": ["a"]}
    assert (await given.result("text"), await given.result("other")) == ({"text": "a"}, None)
