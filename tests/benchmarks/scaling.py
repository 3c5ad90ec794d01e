"""What one PostgreSQL server carries, and what partitions of `events` change: `make scaling`.

TEST_DATABASE_URL names the server, which has to be on this machine: the processor time that it takes for a document is
measured, since that is the same however busy the machine is.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.events import events
from tests.benchmarks import load
from tests.benchmarks.servers import say
from tests.support import databases
from tests.support.server import Server, Worker
from tests.support.user import User

DOCUMENTS = 300  # for each number of workers
WORKERS = (1, 4)
CONCURRENCY = "16"
SIZED = ("documents", "document_texts", "files", "jobs", "document_results", "events", "idempotency_keys")
ROWS, PARTS = 280_000, 14  # of events, which are kept for 400 days
ROUNDS, BATCH = 7, 5000

_SIZES = """
SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname = ANY(:names)
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
    began, database, service = time.monotonic(), backends(engine), sum(cpu(each.pid) for each in processes)
    yield
    database, service = backends(engine) - database, sum(cpu(each.pid) for each in processes) - service
    rate = DOCUMENTS / (time.monotonic() - began)
    each = f"PostgreSQL {database / DOCUMENTS * 1000:.2f} ms, service {service / DOCUMENTS * 1000:.2f} ms"
    say(what, f"{each} of a core for a document; {rate:,.0f}/s")


def backends(engine: Engine) -> float:
    """Seconds that the processes have computed which serve this database, and are there now."""
    with engine.connect() as conn:
        named = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        return sum(map(cpu, conn.scalars(named)))


def cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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
