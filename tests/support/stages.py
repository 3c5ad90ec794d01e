"""`python -m app` with processors that note in a file when they run: STAGES_OF_TEST names them, as `name@version`.

They need a document (`?`) if it says so: `needs name`.
"""

import asyncio
import os
import runpy
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from app.processing import kind
from app.processors.base import LongText, Params, Permanent, Report, Source, Transient
from app.wiring import adapters
from tests.support.factories import pdf
from tests.support.server import Server

VARIABLE, NOTES = "STAGES_OF_TEST", "STAGES_NOTES"


class StageParams(Params):
    seconds: float = 0
    fail: Literal["permanent", "transient", "unexpected"] | None = None
    flaky: int = 0
    letters: int = 0
    ask: str = ""


class StageData(BaseModel):
    text: str
    version: str
    asked: dict[str, Any] | None


class Stage:
    """Returns its name, or as many letters as it is told to, and what it has asked for."""

    description = "For tests."
    at_once = None
    weight = 1
    params = StageParams
    result = StageData

    def __init__(self, spec: str) -> None:
        self.name, _, self.version = spec.partition("@")
        self.weight = 8 if self.name == "heavy" else 1

    async def needed(self, source: Source) -> bool:
        return f"needs {self.name}".encode() in source.path.read_bytes()

    async def run(self, source: Source, params: StageParams, report: Report) -> dict[str, Any]:
        _note(f"{self.name}@{self.version}\n")
        asked = await source.result(params.ask) if params.ask else None
        if asked:
            asked = asked | {"text": asked["text"][:10]}
        report(0.5)
        await asyncio.sleep(params.seconds)
        if params.fail == "permanent":
            raise Permanent("of-no-use", "It was told to fail.")
        if params.fail == "transient" or source.attempt <= params.flaky:
            raise Transient("later-perhaps", "It was told to fail this time.")
        if params.fail == "unexpected":
            raise ZeroDivisionError
        text: Any = self.name
        if params.letters:
            text = LongText(params.letters)
            text.append("x" * params.letters)
        return {"text": text, "version": self.version, "asked": asked}


class PdfOnly(Stage):
    content_types = ("application/pdf",)


class Lines:
    """A server with such processors, and what they have noted."""

    def __init__(self, data_dir: Path, stages: str = "one@1 two@1 three@1 maybe@1", **settings: str) -> None:
        self.data_dir = data_dir
        self.settings = {VARIABLE: stages, NOTES: str(data_dir.parent / "notes"), **settings}

    def server(self, stages: str = "", **settings: str) -> Server:
        more = {VARIABLE: stages} if stages else {}
        return Server(self.data_dir, {**self.settings, **more, **settings}, module="tests.support.stages")

    @property
    def notes(self) -> list[str]:
        """The processors that ran, in their order."""
        path = Path(self.settings[NOTES])
        return path.read_text().split() if path.exists() else []

    @property
    def runs(self) -> list[int]:
        """How often `one`, `two` and `three` ran, at whatever version."""
        ran = Counter(note.partition("@")[0] for note in self.notes)
        return [ran[name] for name in ("one", "two", "three")]


def _note(line: str) -> None:
    with Path(os.environ[NOTES]).open("a") as notes:
        notes.write(line)


def needing(name: str, text: str) -> bytes:
    """A PDF that needs a stage."""
    return pdf(f"{text} needs {name}")


def _of(spec: str) -> Stage:
    return PdfOnly(spec) if spec.startswith("pdf") else Stage(spec)


if __name__ == "__main__":
    kind.uniform = lambda low, _high: low / 5  # type: ignore[assignment]
    adapters.available = lambda _: tuple(map(_of, os.environ[VARIABLE].split()))
    runpy.run_module("app", run_name="__main__", alter_sys=True)
