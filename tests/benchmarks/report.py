"""The table: the medians of all rounds, and what they come to."""

import os
import platform
import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.scenarios import Figures, Row, Scenario

Rounds = dict[str, list[Figures]]  # by kind of server

HEADER = """\
| | | product | textbook | limit | ratio to | ratio | at least | aim | reached |
|---|---|--:|--:|--:|---|--:|--:|--:|---|
"""

PAGE = """\
# Benchmark

Measured by `make bench` on {date}: medians of {rounds} rounds. In each round every server is started anew, warmed up
and loaded in turn; the server has one core, the load another.

- *Product*: this service as shipped, with authentication, database, JSON logs, and every file and commit synced to
  disk.
- *Textbook*: an application as FastAPI's and SQLAlchemy's tutorials show it, which syncs nothing
  ([textbook.py](../tests/benchmarks/textbook.py)).
- *Limit*: a bare ASGI application that only hashes and writes the body, or answers fixed bytes
  ([limit.py](../tests/benchmarks/limit.py)).

All run under uvicorn with uvloop and httptools.

{table}
Where there is no *ratio to*, the product's figure itself is judged.

Machine and versions: {machine}

![The table as a chart](benchmark.png)
"""


class Line(NamedTuple):
    """A row, filled in. `ratio` is what is judged: the product's figure, or its ratio to another."""

    row: Row
    figures: Mapping[str, float]
    ratio: float

    @property
    def reached(self) -> str:
        if self._meets(self.row.aim):
            return "aim"
        return "yes" if self._meets(self.row.at_least) else "**no**"

    def _meets(self, wanted: float) -> bool:
        return self.ratio <= wanted if self.row.less_is_better else self.ratio >= wanted


def lines(scenario: Scenario, rounds: Rounds) -> list[Line]:
    medians = {kind: {name: median(each[name] for each in all_) for name in all_[0]} for kind, all_ in rounds.items()}
    return [_line(row, medians) for row in scenario.rows]


def _line(row: Row, medians: Mapping[str, Figures]) -> Line:
    figures = {kind: each[row.figure] for kind, each in medians.items()}
    if row.against is None:
        return Line(row, figures, figures["product"])
    other = medians[row.against][row.figure] if row.against in medians else medians["product"][row.against]
    return Line(row, figures, figures["product"] / other)


def table(filled: list[Line]) -> str:
    """In Markdown."""
    return HEADER + "".join(_cells(line) for line in filled)


def _cells(line: Line) -> str:
    row = line.row
    figures = (number(line.figures[kind]) if kind in line.figures else "" for kind in ("product", "textbook", "limit"))
    sign = "≤ " if row.less_is_better else ""
    judged = (row.against or "", number(line.ratio), f"{sign}{row.at_least:g}", f"{sign}{row.aim:g}", line.reached)
    return "| " + " | ".join((row.title, row.figure, *figures, *judged)) + " |\n"


def number(value: float) -> str:
    """Three digits that count, and no fraction of what is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def page(table: str, rounds: int) -> str:
    return PAGE.format(date=today(), rounds=rounds, table=table, machine=machine())


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def machine() -> str:
    """What it was measured on, and with which versions."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "fastapi", "sqlalchemy"))
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}."
    )
