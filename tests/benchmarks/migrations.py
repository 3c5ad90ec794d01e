"""How long writes wait while the schema of a large database is migrated, revision by revision: `make migrations`.

A write waits for locks, which the migration holds, and for the machine, which is busy: the longest wait for a lock is
measured by itself. On the PostgreSQL server that TEST_DATABASE_URL names. The database starts at revision 0001, with as
many documents and jobs as the first argument says, a million by default.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from app import migrations
from tests.benchmarks.servers import say
from tests.support import databases

DOCUMENTS = 1_000_000
BASELINE = 10.0  # seconds without any migration
PAUSE = 0.005  # seconds between two writes to a table, and between two looks at who waits for a lock

_FILL = (
    "INSERT INTO users VALUES (md5('u')::uuid, 'a@example.com', 'x', true, now())",
    """
    INSERT INTO documents
    SELECT md5('d' || n)::uuid, md5('u')::uuid, 'report ' || n || '.pdf', 'application/pdf', n,
        md5(n::text) || md5(n::text), 'COMPLETED', 3, 'Invoice ' || n, 'folder-' || n % 997, '[]',
        md5('j' || n)::uuid, NULL, now(), now()
    FROM generate_series(1, :documents) AS n
    """,
    """
    INSERT INTO jobs
    SELECT md5('j' || n)::uuid, md5('d' || n)::uuid, md5('u')::uuid, 'simulated', '1', '{}', 'SUCCEEDED', 1, 1, 5, NULL,
        NULL, now(), now(), 1, NULL, false, NULL, now(), now(), now()
    FROM generate_series(1, :documents) AS n
    """,
    "INSERT INTO results SELECT document_id, id, '{}', now() FROM jobs",
    """
    INSERT INTO events (id, event, at, actor, document_id, data)
    SELECT id, 'job.succeeded', now(), 'worker', document_id, '{}' FROM jobs
    """,
)
# What the service writes to most. Each is right at every revision.
_WRITES = {
    "documents": "UPDATE documents SET version = version + 1 WHERE id = md5('d1')::uuid",
    "jobs": "UPDATE jobs SET progress = 1 WHERE id = md5('j1')::uuid",
    "events": "INSERT INTO events (id, event, at, actor, data) VALUES (gen_random_uuid(), 'probe', now(), 'me', '{}')",
}


_LOCKED = """
SELECT extract(epoch FROM max(clock_timestamp() - query_start)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'writer' AND wait_event_type = 'Lock'
"""


class Repeated:
    """Executes a statement again and again, in a thread, and remembers the longest that `measure` said."""

    def __init__(self, engine: Engine, statement: str, measure: Callable[[float, Any], float]) -> None:
        self.longest = 0.0  # seconds
        self._engine = engine
        self._statement = text(statement)
        self._measure = measure
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("SET application_name = 'writer'"))
            while not self._stopped:
                began = time.monotonic()
                result = conn.execute(self._statement)
                self.longest = max(self.longest, self._measure(time.monotonic() - began, result))
                time.sleep(PAUSE)


@contextmanager
def writers(engine: Engine) -> Iterator[dict[str, Repeated]]:
    """Each table's writer, and who looks how long they wait for locks."""
    found = {table: Repeated(engine, statement, lambda took, _: took) for table, statement in _WRITES.items()}
    found["locks"] = Repeated(engine, _LOCKED, lambda _, result: float(result.scalar() or 0))
    yield found
    for each in found.values():
        each.stop()


def main(documents: int) -> None:
    folder = Path("database of this run")
    engine = databases.engine(folder)
    try:
        upgrade(engine, "0001")
        with engine.begin() as conn:
            for statement in _FILL:
                conn.execute(text(statement), {"documents": documents})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM ANALYZE"))
        say(
            "revision",
            f"of {documents:,} documents and jobs: seconds in all, and the longest write to each table in ms",
        )
        with writers(engine) as found:
            time.sleep(BASELINE)
        report("none", BASELINE, found)
        for number in range(2, int(migrations.HEAD) + 1):
            began = time.monotonic()
            with writers(engine) as found:
                upgrade(engine, f"{number:04}")
            report(f"{number:04}", time.monotonic() - began, found)
    finally:
        databases.drop_all()


def upgrade(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.connect() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, revision)
        conn.commit()


def report(revision: str, seconds: float, found: dict[str, Repeated]) -> None:
    longest = "  ".join(f"{table} {writer.longest * 1000:5.0f}" for table, writer in found.items())
    say(revision, f"{seconds:6.1f} s  {longest}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else DOCUMENTS)
