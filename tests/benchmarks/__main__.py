"""The benchmark: `make bench`, or a part of it: `make bench ARGS="--only upload --rounds 1"`.

A whole run also writes docs/benchmark.md and the chart beside it.
"""

import argparse
import os
import sys
from pathlib import Path

from tests.benchmarks import chart, report
from tests.benchmarks.scenarios import SCENARIOS, Scenario
from tests.benchmarks.servers import CORES, say

DOCS = Path("docs")


def main():
    wanted = _arguments()
    chosen = [each for each in SCENARIOS if not wanted.only or any(part in each.name for part in wanted.only)]
    os.sched_setaffinity(0, {CORES[-1]})
    lines: list[report.Line] = []
    for scenario in chosen:
        lines += report.lines(scenario, _run(scenario, wanted.rounds))
    table = report.table(lines)
    sys.stdout.write(f"{table}\n")
    if chosen == SCENARIOS:
        (DOCS / "benchmark.md").write_text(report.page(table, wanted.rounds))
        chart.draw(lines, f"{report.today()}: {report.machine()}", DOCS / "benchmark.png")


def _arguments() -> argparse.Namespace:
    names = ", ".join(each.name for each in SCENARIOS)
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=f"Scenarios: {names}.")
    parser.add_argument("--only", nargs="+", metavar="PART", help="run only scenarios with one of these in their names")
    parser.add_argument("--rounds", type=int, default=5, help="each visits all servers in turn; default: 5")
    return parser.parse_args()


def _run(scenario: Scenario, count: int) -> report.Rounds:
    rounds: report.Rounds = {kind: [] for kind in scenario.kinds}
    for number in range(1, count + 1):
        sys.stderr.write(f"{scenario.name}, round {number} of {count}\n")
        for kind in scenario.kinds:
            figures = scenario.measure(kind)
            rounds[kind].append(figures)
            say(kind, ", ".join(f"{value:,.4g} {name}" for name, value in figures.items()))
    return rounds


if __name__ == "__main__":
    main()
