"""What grew, as a table and as a chart."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

PAGE = """\
# How cost grows

Measured by `make growth` on {date}, the server on one core and the load on another: all documents belong to one user,
pages are from anywhere in their list, and every request is about another document. *ms* is the processor time that the
server takes for a request; PostgreSQL's own is not in it, and runs on the same cores. The chart has it all:
it shows the time that passed for each request.

![Cost by connections and documents](growth.png)

| | documents | connections | requests/s | p99 ms | ms | failed |
|---|--:|--:|--:|--:|--:|--:|
{rows}"""


class Point(NamedTuple):
    """What one measurement gave; `cost` is the server's processor time for a request, in ms."""

    engine: str
    operation: str
    documents: int
    connections: int
    rate: float
    p99: float
    cost: float
    failures: int


def write(points: Sequence[Point], folder: Path):
    """growth.md and growth.png."""
    rows = "".join(
        f"| {each.operation}, {each.engine} | {each.documents:,} | {each.connections:,} | {each.rate:,.0f} "
        f"| {each.p99 * 1000:,.1f} | {each.cost:.2f} | {each.failures} |\n"
        for each in points
    )
    (folder / "growth.md").write_text(PAGE.format(date=f"{datetime.now(UTC):%Y-%m-%d}", rows=rows))
    _draw(points, folder / "growth.png")


def _draw(points: Sequence[Point], file: Path):
    """A panel for each operation and engine: time by connections, a line for each number of documents."""
    import matplotlib as mpl  # noqa: PLC0415 - the numbers are there without it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    engines, operations = (list(dict.fromkeys(each[index] for each in points)) for index in (0, 1))
    size = {"figsize": (4 * len(operations), 3.2 * len(engines)), "layout": "constrained"}
    figure, grid = plt.subplots(len(engines), len(operations), squeeze=False, sharey=True, sharex=True, **size)
    for row, engine in zip(grid, engines, strict=True):
        for panel, operation in zip(row, operations, strict=True):
            panel.set_title(f"{operation}, {engine}")
            shown = [each for each in points if (each.engine, each.operation) == (engine, operation)]
            for documents in dict.fromkeys(each.documents for each in shown):
                line = [each for each in shown if each.documents == documents]
                label = f"{documents:,} documents"
                connections, times = zip(*((each.connections, 1000 / each.rate) for each in line), strict=True)
                panel.plot(connections, times, marker="o", label=label)
            panel.set_xscale("log")
            panel.grid(alpha=0.3)
    grid[0][0].set_ylim(bottom=0)  # of all panels, and once all is drawn
    figure.supxlabel("connections")
    figure.supylabel("ms a request (1 / rate)")
    grid[0][0].legend()
    figure.savefig(file, dpi=110)
