"""Mixed traffic for ten minutes at 80 % of what the service can do: `make soak`, or `make soak SECONDS=60`.

Fails if any answer was an error, or if files and rows do not agree at the end.
"""

import os
import sys
import time
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory

import typer

from tests.benchmarks.load import percentile
from tests.benchmarks.people import Crowd, Traffic
from tests.benchmarks.servers import CORES, running
from tests.support.invariants import Ledger

SECONDS = float(os.environ.get("SECONDS", "600"))
PEOPLE = 32
CLOSED = 15.0  # seconds for which capacity is measured
SHARE = 0.8
WARM_UP = 0.2  # of the time, in which memory may still grow


def main():
    os.sched_setaffinity(0, {CORES[-1]})
    with TemporaryDirectory(prefix="soak-") as folder:
        with running("product", Path(folder)) as server:
            crowd = Crowd(server.port, PEOPLE)
            crowd.live(CLOSED / 3)
            capacity = crowd.live(CLOSED).rate
            typer.echo(f"capacity {capacity:,.0f} requests/s; {SHARE:.0%} of it for {SECONDS:,.0f} s")
            memory: list[tuple[float, float]] = []
            traffic = crowd.live(SECONDS, capacity * SHARE, lambda: memory.append((time.monotonic() / 60, server.rss)))
            ledger = Ledger(Path(folder))
            ledger.settle()
        report(traffic, memory[int(len(memory) * WARM_UP) :])
        ledger.check()
        typer.echo("files and rows agree")
    sys.exit(bool(traffic.errors))


def report(traffic: Traffic, memory: list[tuple[float, float]]):
    typer.echo("\n".join([f"{traffic.rate:,.0f} requests/s, {len(traffic.errors)} errors", *traffic.errors[:10]]))
    for kind, latencies in sorted(traffic.latencies.items()):
        p50, p99 = (percentile(latencies, share) * 1000 for share in (0.5, 0.99))
        typer.echo(f"  {kind:10} {len(latencies):9,}  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms")
    slope, _ = linear_regression(*zip(*memory, strict=True))
    sizes = [size for _, size in memory]
    typer.echo(f"memory {min(sizes):.0f} to {max(sizes):.0f} MB, {slope:+.2f} MB a minute")


if __name__ == "__main__":
    main()
