"""What one PostgreSQL server carries, and what partitions of `events` change: `make scaling`.

TEST_DATABASE_URL names the server. It has to be on this machine, and nobody else may use it: the processor time that
all of its processes take for a document is measured, since that is the same however busy the machine is.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import yaml
from sqlalchemy import Connection, Engine, text

from app.events import events
from tests.benchmarks import load
from tests.benchmarks.servers import say
from tests.support import databases, zygote
from tests.support.factories import pdf
from tests.support.server import Server, Worker
from tests.support.user import User

DOCUMENTS = 300  # for each number of workers
WORKERS = (1, 4)
CONCURRENCY = "16"
SIZED = ("documents", "document_texts", "files", "jobs", "document_results", "events", "idempotency_keys")
ROWS, PARTS = 280_000, 14  # of events, which are kept for 400 days
ROUNDS, BATCH = 7, 5000
JOBS = 200_000
PAGE, SCALER = Path("docs/scaling.md"), Path("deploy/kubernetes/keda/scaler.yaml")

_SIZES = """
SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname = ANY(:names)
"""
_JOBS = """
INSERT INTO jobs
SELECT made.* FROM generate_series(1, :jobs) AS n,
    (SELECT job FROM jobs AS job WHERE state = 'SUCCEEDED' LIMIT 1) AS one,
    jsonb_populate_record(one.job, jsonb_build_object('id', gen_random_uuid(), 'key', 'trial:' || n)
    || CASE WHEN n % 200 = 0 THEN '{"state": "QUEUED", "finished_at": null}' ELSE '{}' END::jsonb) AS made
"""
_FILL = """
INSERT INTO {table} (id, event, at, actor, user_id, document_id, job_id, data, mac, seq)
SELECT gen_random_uuid(), 'job.succeeded', now(), 'worker:host-1:4711', md5('u' || n % 100)::uuid,
    md5('d' || n / 6)::uuid, md5('j' || n / 6)::uuid, '{{"attempt": 1, "fence": 1, "result": "simulated"}}',
    decode(repeat('ab', 32), 'hex'), n
FROM generate_series({first}, {last}) AS n
"""


def main() -> None:
    try:
        with TemporaryDirectory(prefix="scaling-") as folder:
            lifecycle(Path(folder) / "var")
            counting(databases.engine(Path(folder) / "var"))
        partitions(databases.engine(Path("partitions of this run")))
    finally:
        databases.drop_all()


def lifecycle(data_dir: Path) -> None:
    """Upload, accept and run documents with more and more workers."""
    with Server(data_dir, {"JOB_CONCURRENCY": "0", "RATE_LIMIT": "0"}) as server:
        user, operator, engine = server.register(), server.operator(), databases.engine(data_dir)
        token = user.http.headers["Authorization"].removeprefix("Bearer ")
        for number in WORKERS:
            with measured(engine, [server], "upload"):
                load.drive(server.port, repeat(load.upload(2000, token), DOCUMENTS), 8)
            with measured(engine, [server], "accept"):
                accept(user)
            operator.http.post("/admin/processors/simulated/pause")
            with ExitStack() as stack:
                said = {"JOB_CONCURRENCY": CONCURRENCY}
                workers = [stack.enter_context(Worker(data_dir, said)) for _ in range(number)]
                with measured(engine, workers, f"run, workers: {number}"):
                    operator.http.post("/admin/processors/simulated/resume")
                    settle(engine)
        tell_sizes(engine)
        divide(user, engine)
    for command in (("audit", "verify"), ("check",)):
        done = zygote.run(*command, DATA_DIR=str(data_dir), **databases.settings(data_dir))
        say(" ".join(command), f"exit code {done.returncode}")
        assert done.returncode == 0, done.stdout + done.stderr


def accept(user: User) -> None:
    wanted: dict[str, Any] = {"filter": {"status": "UPLOADED"}, "params": {"seconds": 0}}
    answer = user.http.post("/documents/process-batch", json=wanted, timeout=120)
    assert answer.status_code == 202, answer.text


def settle(engine: Engine) -> None:
    """Wait until nothing is left to do."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while conn.scalar(text("SELECT EXISTS (SELECT FROM jobs WHERE finished_at IS NULL)")):
            time.sleep(0.05)


@contextmanager
def measured(engine: Engine, processes: list[Server], what: str) -> Iterator[None]:
    """Tell what a document takes of PostgreSQL's processors, and of the service's."""
    began, database, service = time.monotonic(), postgresql(engine), sum(cpu(each.pid) for each in processes)
    yield
    database, service = postgresql(engine) - database, sum(cpu(each.pid) for each in processes) - service
    rate = DOCUMENTS / (time.monotonic() - began)
    each = f"PostgreSQL {database / DOCUMENTS * 1000:.2f} ms, service {service / DOCUMENTS * 1000:.2f} ms"
    say(what, f"{each} of a core for a document; {rate:,.0f}/s")


def postgresql(engine: Engine) -> float:
    """Seconds that the server's processes have computed: those that are there, and those that have ended."""
    with engine.connect() as conn:
        [_, parent, *_] = fields(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    now = 0.0
    for each in children:
        with suppress(FileNotFoundError):  # it has ended just now, and is among those
            now += cpu(int(each))
    return now + cpu(int(parent)) + sum(map(int, fields(int(parent))[13:15])) / os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    user, system = fields(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def fields(pid: int) -> list[str]:
    """Those of /proc/pid/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tell_sizes(engine: Engine) -> None:
    """Rows and indexes of a document, as they are, and compact; and what became of rows that were changed."""
    number = DOCUMENTS * len(WORKERS)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
        for name in ("jobs", "documents"):
            found = conn.execute(
                text("SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup FROM pg_stat_user_tables WHERE relname = :name"),
                {"name": name},
            ).one()
            say(name, f"changed {found[0] / number:.1f} times each, {found[1] / number:.1f} in place; dead {found[2]}")
        for state in ("as it is", "compact"):
            sizes = conn.execute(text(_SIZES), {"names": list(SIZED)}).all()
            for name, rows, indexes in sorted(sizes):
                say(state, f"{name}: {rows / number:,.0f} bytes of rows, {indexes / number:,.0f} of indexes")
            say(state, f"all: {sum(rows + indexes for _, rows, indexes in sizes) / number:,.0f} bytes a document")
            if state == "as it is":
                conn.execute(text("VACUUM (FULL, ANALYZE)"))


def divide(user: User, engine: Engine) -> None:
    """Partition `events` as the page says, while files are uploaded, until events are in the second part."""
    [lines] = re.findall(r"```sql\n(ALTER TABLE events.*?)```", PAGE.read_text(), re.DOTALL)
    statuses: list[int] = []

    def upload() -> None:
        while not divided.is_set():
            statuses.append(user.post_file(pdf(f"file {len(statuses)}")).status_code)

    divided = Event()
    client = Thread(target=upload)
    client.start()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        last = conn.scalar(text("SELECT max(seq) FROM events")) + 50
        conn.exec_driver_sql(lines.replace("1000000000", str(last)))
        deadline = time.monotonic() + 60
        while not conn.scalar(text("SELECT count(*) FROM events_1")) and time.monotonic() < deadline:
            time.sleep(0.1)
        divided.set()
        client.join()
        parts = [conn.scalar(text(f"SELECT count(*) FROM events_{n}")) for n in (0, 1)]  # noqa: S608 - our own names
    say("partitions", f"{statuses.count(201)} of {len(statuses)} uploads meanwhile; events in the parts: {parts}")
    assert {*statuses} == {201}
    assert all(parts)


def counting(engine: Engine) -> None:
    """How long the scaler's query takes among many jobs, of which one in two hundred is due."""
    query = next(yaml.safe_load_all(SCALER.read_text()))["spec"]["triggers"][0]["metadata"]["query"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text(_JOBS), {"jobs": JOBS})
        conn.execute(text("VACUUM ANALYZE jobs"))
        took = []
        for _ in range(20):
            began = time.perf_counter()
            due = conn.exec_driver_sql(query.replace("%", "%%")).scalar_one()
            took.append((time.perf_counter() - began) * 1000)
    say("scaler", f"{due} of {JOBS:,} jobs are due: {median(took):.1f} ms, at most {max(took):.1f} ms")


def partitions(engine: Engine) -> None:
    """Compare a whole table of events with one in parts."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("SET max_parallel_workers_per_gather = 0"))
        make_tables(conn)
        for table in ("whole", "parted"):
            conn.execute(text(_FILL.format(table=table, first=1, last=ROWS)))
            conn.execute(text(f"VACUUM ANALYZE {table}"))
        reads = {
            "timeline of a document": "document_id = md5('d' || :n)::uuid ORDER BY seq LIMIT 50",
            "what followed for an account": "user_id = md5('u1')::uuid AND document_id IS NOT NULL AND seq > :last"
            " ORDER BY seq LIMIT 50",
        }
        for what, where in reads.items():
            compare(what, {table: reading(conn, table, where) for table in ("whole", "parted")})
        compare(f"insert {BATCH}", {table: inserting(conn, table) for table in ("whole", "parted")})
        month = ROWS // PARTS
        compare(
            "forget a month",
            {
                "whole": lambda: conn.execute(text("DELETE FROM whole WHERE seq < :month"), {"month": month}),
                "parted": lambda: conn.execute(text("DROP TABLE parted_0")),
            },
            rounds=1,
        )


def make_tables(conn: Connection) -> None:
    """Tables like `events`, with its keys and indexes: `seq` rises with time, so ranges of it are as good as months."""
    events.create(conn)
    conn.execute(text("CREATE TABLE whole (LIKE events INCLUDING ALL)"))
    conn.execute(text("CREATE TABLE parted (LIKE events INCLUDING ALL) PARTITION BY RANGE (seq)"))
    month = ROWS // PARTS
    for number in range(PARTS):
        last = "MAXVALUE" if number == PARTS - 1 else str((number + 1) * month)
        first = "MINVALUE" if number == 0 else str(number * month)
        conn.execute(text(f"CREATE TABLE parted_{number} PARTITION OF parted FOR VALUES FROM ({first}) TO ({last})"))


def reading(conn: Connection, table: str, where: str) -> Callable[[], Any]:
    statement, numbers = text(f"SELECT * FROM {table} WHERE {where}"), count(1)  # noqa: S608 - our own names

    def read() -> None:
        for _ in range(100):
            n = next(numbers) * 7919 % (ROWS // 6)
            conn.execute(statement, {"n": n, "last": ROWS - 500}).all()

    return read


def inserting(conn: Connection, table: str) -> Callable[[], Any]:
    starts = count(ROWS + 1, BATCH)

    def insert() -> None:
        first = next(starts)
        conn.execute(text(_FILL.format(table=table, first=first, last=first + BATCH - 1)))

    return insert


def compare(what: str, ways: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> None:
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            took[way].append(time.perf_counter() - began)
    whole, parted = (median(took[way]) for way in ("whole", "parted"))
    say(what, f"{whole * 1000:.1f} ms whole, {parted * 1000:.1f} ms parted: {parted / whole:.2f}")


if __name__ == "__main__":
    main()
