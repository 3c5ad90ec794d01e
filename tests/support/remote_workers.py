"""The workers elsewhere that are shipped, as processes: two examples, and `python -m app worker --remote`."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import reaper
from tests.support.server import Server
from tests.support.zygote import Forked

FOLDER = Path(__file__).parents[2] / "examples"
NODE = shutil.which("node")

Process = subprocess.Popen[bytes] | Forked
Launch = Callable[[list[str], Mapping[str, str], Path], Process]


@dataclass
class Program:
    """A worker that runs, and what it has printed."""

    process: Process
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@dataclass(frozen=True)
class Kind:
    """A worker that is shipped: what it does, and what it says while nobody answers (`alone`).

    `seconds` gives the params and the environment of work that takes so long.
    """

    name: str
    processor: str
    launch: Launch
    seconds: Callable[[float], tuple[dict[str, Any], dict[str, str]]]
    result: Callable[[dict[str, Any]], dict[str, Any]]
    alone: str

    def params(self, seconds: float) -> dict[str, Any]:
        return self.seconds(seconds)[0]

    @contextmanager
    def run(self, server: Server, key: str, name: str, *, seconds: float = 0) -> Iterator[Program]:
        """The worker, for work that takes so long; killed at the end."""
        log = server.data_dir.parent / f"{self.name}-{name}.log"
        log.touch()
        environment = {"API_KEY": key, "DOCUMENT_API_KEY": key, "PATH": os.environ["PATH"]} | self.seconds(seconds)[1]
        program = Program(self.launch([server.url, self.processor], environment, log), log)
        try:
            yield program
        finally:
            program.process.send_signal(signal.SIGCONT)
            program.process.kill()
            program.process.wait()


def _example(*command: str) -> Launch:
    def launch(arguments: list[str], environment: Mapping[str, str], log: Path) -> Process:
        with log.open("ab") as out:
            process = subprocess.Popen([*command, *arguments], env=environment, stdout=out, stderr=out)
        reaper.watch(process.pid)
        return process

    return launch


def elsewhere(url: str, key: str, log: Path, *options: str, **settings: str) -> Forked:
    """`python -m app worker --remote`."""
    environment = {"DOCUMENT_API_KEY": key, "PATH": os.environ["PATH"], "LOG_FORMAT": "json", "JOB_CONCURRENCY": "1"}
    return Forked(("worker", "--remote", url, *options), environment | settings, log)


def _own(arguments: list[str], environment: Mapping[str, str], log: Path) -> Forked:
    return elsewhere(arguments[0], environment["DOCUMENT_API_KEY"], log, "--processor", arguments[1])


def _slow(seconds: float) -> tuple[dict[str, Any], dict[str, str]]:
    return {}, {"WORK_SECONDS": str(seconds)}


def _counted(document: dict[str, Any]) -> dict[str, Any]:
    return {"count": document["size"]}


def _simulated(document: dict[str, Any]) -> dict[str, Any]:
    return {"simulated": True} | {name: document[name] for name in ("size", "sha256", "content_type")}


PYTHON = Kind(
    "python",
    "count",
    _example(sys.executable, str(FOLDER / "remote_worker.py")),
    _slow,
    _counted,
    alone="nobody answers",
)
JAVASCRIPT = Kind(
    "node",
    "count",
    _example(NODE or "node", str(FOLDER / "remote_worker.mjs")),
    _slow,
    _counted,
    alone="nobody answers",
)
OWN = Kind(
    "app",
    "simulated",
    _own,
    lambda seconds: ({"seconds": seconds}, {}),
    _simulated,
    alone="remote.away",
)
needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node.js")
EXAMPLES = [pytest.param(PYTHON, id="python"), pytest.param(JAVASCRIPT, id="node", marks=needs_node)]
KINDS = [*EXAMPLES, pytest.param(OWN, id="app")]
