"""What is measured: each round runs a scenario with each of its servers, a fresh one, and gets figures by name."""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count, repeat
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.benchmarks import load
from tests.benchmarks.load import percentile
from tests.benchmarks.seed import many_documents
from tests.benchmarks.servers import ACCOUNT, Server, running
from tests.support.waiting import until

KB, MB = 1000, 1000 * 1000
SECONDS = 3.0  # that a steady load goes on
COMPLETED = "SELECT count(*) FROM documents WHERE status = 'COMPLETED'"

Figures = dict[str, float]
Measure = Callable[[str], Figures]


class Row(NamedTuple):
    """A row of the table: a figure of the product, or its ratio to that of another server, or to another figure."""

    title: str
    figure: str
    against: str | None
    at_least: float
    aim: float
    less_is_better: bool = False


class Scenario(NamedTuple):
    name: str
    measure: Measure
    kinds: Sequence[str]
    rows: Sequence[Row]


SCENARIOS: list[Scenario] = []


def scenario(kinds: str, *rows: Row) -> Callable[[Measure], Measure]:
    def add(measure: Measure) -> Measure:
        SCENARIOS.append(Scenario(measure.__name__, measure, kinds.split(), rows))
        return measure

    return add


@scenario("product textbook limit", Row("upload 50 MB", "MB/s", "limit", 0.75, 0.87))
def upload_50mb(kind: str) -> Figures:
    return {"MB/s": 50 * _uploads_per_second(kind, 50 * MB, connections=4)}


@scenario("product textbook limit", Row("upload 1 MB", "MB/s", "limit", 0.45, 0.60))
def upload_1mb(kind: str) -> Figures:
    return {"MB/s": _uploads_per_second(kind, MB, connections=8)}


@scenario("product textbook limit", Row("upload 20 KB, durable", "uploads/s", "textbook", 1.0, 1.5))
def upload_20kb(kind: str) -> Figures:
    return {"uploads/s": _uploads_per_second(kind, 20 * KB, connections=32)}


@scenario(
    "product", Row("upload 20 KB with an Idempotency-Key, of without", "uploads/s", "uploads/s without", 0.8, 0.95)
)
def upload_with_key(_kind: str) -> Figures:
    with running("product") as server:
        request = load.upload(20 * KB, server.login())
        load.drive(server.port, repeat(request, 32), 32)
        without = server.drive(repeat(request), 32, SECONDS).rate
        keyed = (load.with_key(request, str(number)) for number in count())
        return {"uploads/s": server.drive(keyed, 32, SECONDS).rate, "uploads/s without": without}


def _uploads_per_second(kind: str, size: int, connections: int) -> float:
    with running(kind) as server:
        request = load.upload(size, server.login())
        load.drive(server.port, repeat(request, connections), connections)
        return server.drive(repeat(request), connections, SECONDS).rate


@scenario(
    "product textbook limit",
    Row("peak RSS growth, 4 x 50 MB", "MB", None, 14, 8, less_is_better=True),
    Row("ping p99 during 4 x 50 MB", "ms", "textbook", 0.15, 0.05, less_is_better=True),
)
def four_large(kind: str) -> Figures:
    with running(kind) as server:
        token = server.login()
        load.drive(server.port, repeat(load.upload(MB, token), 4), 1)
        before = server.rss
        server.forget_peak()
        with load.pings(server.port) as pings:
            server.drive(repeat(load.upload(50 * MB, token)), 4, SECONDS)
        return {"MB": server.peak_rss - before, "ms": pings.p99 * 1000}


@scenario(
    "product textbook limit",
    Row("1,000 uploads of 1 MB at once: failures", "failures", None, 0, 0, less_is_better=True),
    Row("1,000 uploads of 1 MB at once: p99", "s", "limit", 1.5, 1.25, less_is_better=True),
    Row("1,000 uploads of 1 MB at once: RSS", "MB", "textbook", 0.6, 0.4, less_is_better=True),
)
def thousand_at_once(kind: str) -> Figures:
    with running(kind) as server:
        request = load.upload(MB, server.login())
        load.drive(server.port, repeat(request, 8), 4)
        server.forget_peak()
        done = server.drive(repeat(request, 1000), 1000)
        return {"failures": done.failures, "s": done.p99, "MB": server.peak_rss}


@scenario("product textbook limit", Row("GET /documents/{id}", "requests/s", "textbook", 4, 8))
def get_document(kind: str) -> Figures:
    with running(kind) as server:
        return {"requests/s": _reads_per_second(server)}


def _reads_per_second(server: Server) -> float:
    token = server.login()
    request = load.get(f"/documents/{server.ask(load.upload(20 * KB, token))['id']}", token)
    load.drive(server.port, repeat(request, 500), 16)
    return server.drive(repeat(request), 16, SECONDS).rate


@scenario("product", Row("GET /documents, page 1,000: cost", "ms", "ms for page 1", 1.2, 1.0, less_is_better=True))
def list_documents(_kind: str) -> Figures:
    seed = many_documents()
    with running("product", Path(seed.folder.name)) as server:
        token = server.login()
        pages = [load.get(path, token) for path in (seed.first_page, seed.late_page)]
        loads = [[server.drive(repeat(page), 4, SECONDS / 6) for page in pages] for _ in range(4)][1:]
    first, late = (sum(1000 / done.rate for done in each) / len(each) for each in zip(*loads, strict=True))
    return {"ms": late, "ms for page 1": first}


@scenario("product textbook limit", Row("POST …/process accepted", "accepted/s", "textbook", 5, 10))
def accept(kind: str) -> Figures:
    with running(kind) as server:
        requests = _process_requests(server, 1500, seconds=0)
        return {"accepted/s": server.drive(requests, 32).rate}


@scenario("product textbook", Row("processed end to end, 2 ms of work each", "documents/s", "textbook", 6, 12))
def process(kind: str) -> Figures:
    with running(kind) as server:
        requests = _process_requests(server, 1000, seconds=0.002)
        began = time.perf_counter()
        server.drive(requests, 32)
        _wait_for_completed(server, len(requests))
        return {"documents/s": len(requests) / (time.perf_counter() - began)}


def _process_requests(server: Server, count: int, seconds: float) -> list[bytes]:
    """One for each of so many new documents."""
    token = server.login()
    done = load.drive(server.port, repeat(load.upload(20 * KB, token), count), 32, keep=True)
    assert not done.failures, done.statuses
    ids = [json.loads(answer)["id"] for answer in done.answers]
    return [load.post(f"/documents/{each}/process", token, params={"seconds": seconds}) for each in ids]


def _wait_for_completed(server: Server, count: int):
    """Looks into the file, which costs the server nothing: readers of a WAL block nobody."""
    with closing(sqlite3.connect(f"file:{server.folder}/app.db?mode=ro", uri=True, timeout=60)) as database:
        until(lambda: database.execute(COMPLETED).fetchone()[0] == count, timeout=600)


@scenario(
    "product textbook",
    Row("24 logins at once: ping p99", "ms", None, 25, 15, less_is_better=True),
    Row("24 logins at once: throughput", "logins/s", "textbook", 0.95, 1.0),
)
def logins(kind: str) -> Figures:
    with running(kind) as server:
        server.login()
        with load.pings(server.port) as pings:
            done = server.drive(repeat(load.post("/auth/login", **ACCOUNT), 24), 24)
        return {"logins/s": done.rate, "ms": pings.p99 * 1000}


@scenario("product", Row("JSON logging on, of off", "requests/s", "requests/s without", 0.75, 0.9))
def logging(_kind: str) -> Figures:
    with running("product") as server:
        on = _reads_per_second(server)
    with running("product", LOG_LEVEL="ERROR") as server:
        return {"requests/s": on, "requests/s without": _reads_per_second(server)}


@scenario(
    "product",
    Row("two processes on one SQLite file: the slower's commits", "commits/s", "commits/s of the faster", 0.8, 0.95),
    Row("two processes on one SQLite file: p99", "ms", None, 20, 20, less_is_better=True),
)
def two_processes(_kind: str) -> Figures:
    with running("product") as one, running("product", one.folder) as other:
        token = one.login()
        document = one.ask(load.upload(20 * KB, token))["id"]
        request = load.patch(f"/documents/{document}", token, description="seen")
        with Pool(2) as pool:
            loads = pool.starmap(load.drive, [(each.port, repeat(request), 4, SECONDS) for each in (one, other)])
    rates = sorted(done.rate for done in loads)
    return {
        "commits/s": rates[0],
        "commits/s of the faster": rates[1],
        "ms": percentile([*loads[0].latencies, *loads[1].latencies], 0.99) * 1000,
    }


@scenario(
    "product textbook limit",
    Row("process start to first answer, nothing there", "s", None, 1.5, 0.7, less_is_better=True),
    Row("process start to first answer, started again", "s, again", None, 1.5, 0.7, less_is_better=True),
)
def start(kind: str) -> Figures:
    with TemporaryDirectory() as folder:
        return {name: _seconds_to_start(kind, Path(folder)) for name in ("s", "s, again")}


def _seconds_to_start(kind: str, folder: Path) -> float:
    began = time.perf_counter()
    with running(kind, folder):
        return time.perf_counter() - began
