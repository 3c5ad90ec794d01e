"""How cost grows with connections and with documents, on SQLite and PostgreSQL: `make growth`.

TEST_DATABASE_URL names the PostgreSQL server; without it only SQLite is measured. Writes docs/growth.md and the chart
beside it.
"""

import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from sqlalchemy import make_url

from app.web import pagination
from tests.benchmarks import growth_report, growth_rows, load
from tests.benchmarks.growth_report import Point
from tests.benchmarks.servers import CORES, Server, running, say
from tests.support import databases

DOCUMENTS = (1_000, 100_000, 1_000_000)
CONNECTIONS = (1, 10, 100, 1000)
SECONDS = 1.0
SAMPLES = 1000  # documents that requests are about, all over the database

Requests = Callable[[str, int], Iterator[bytes]]


def sampled(documents: int) -> Iterator[UUID]:
    """Ids of documents, in no order that a cache could like."""
    step = max(documents // SAMPLES, 1)
    return cycle(UUID(growth_rows.document_id(number * 389 * step % documents)) for number in range(SAMPLES))


def uploads(token: str, _documents: int) -> Iterator[bytes]:
    return repeat(load.upload(20_000, token))


def gets(token: str, documents: int) -> Iterator[bytes]:
    return (load.get(f"/documents/{each}", token) for each in sampled(documents))


def pages(token: str, documents: int) -> Iterator[bytes]:
    """Of 50, from anywhere in the list."""
    for number in cycle(range(0, documents, max(documents // SAMPLES, 1))):
        end = pagination.encode("-created_at", growth_rows.created_at(number), UUID(growth_rows.document_id(number)))
        yield load.get(f"/documents?limit=50&cursor={end}", token)


def processes(token: str, documents: int) -> Iterator[bytes]:
    for each in sampled(documents):
        yield load.post(f"/documents/{each}/process", token, params={"seconds": 0}, force=True)


OPERATIONS: dict[str, Requests] = {
    "upload 20 KB": uploads,
    "get document": gets,
    "list page of 50": pages,
    "process": processes,
}


def main():
    os.sched_setaffinity(0, {CORES[-1]})
    points: list[Point] = []
    for engine in ("SQLite", "PostgreSQL") if databases.POSTGRESQL else ("SQLite",):
        with TemporaryDirectory(prefix="growth-") as folder:
            points += _grown(engine, Path(folder))
    databases.drop_all()
    growth_report.write(points, Path("docs"))


def _grown(engine: str, folder: Path) -> Iterator[Point]:
    settings = {"DATABASE_URL": databases.url(folder)} if engine == "PostgreSQL" else {}
    address = make_url(settings.get("DATABASE_URL", f"sqlite+aiosqlite:///{folder}/app.db"))
    with running("product", folder, **settings) as server:
        owner = UUID(server.ask(load.get("/auth/me", server.login()))["id"])
    for before, documents in pairwise((0, *DOCUMENTS)):
        began = time.perf_counter()
        growth_rows.fill(databases.past(address), owner.hex, range(before, documents))
        say(engine, f"{documents:,} documents after {time.perf_counter() - began:.0f} s")
        with running("product", folder, **settings) as server:
            for operation, connections in ((each, count) for each in OPERATIONS for count in CONNECTIONS):
                yield _measured(server, engine, operation, documents, connections)


def _measured(server: Server, engine: str, operation: str, documents: int, connections: int) -> Point:
    requests = OPERATIONS[operation](server.login(), documents)
    load.drive(server.port, requests, connections, SECONDS / 4)
    before = server.cpu
    done = server.drive(requests, connections, SECONDS)
    cost = (server.cpu - before) / max(done.statuses.total(), 1) * 1000
    return Point(engine, operation, documents, connections, done.rate, done.p99, cost, done.failures)


if __name__ == "__main__":
    main()
