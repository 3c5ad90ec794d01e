"""A PostgreSQL server that is busy, slow, away or taken down midway: told at once, and nothing lost or half done."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, func, make_url, select, text

from app import migrations, wiring
from app.database import after_commit, metadata
from app.database.postgresql import PostgresqlDatabase
from app.documents.models import documents
from app.errors import ConfigurationError, DatabaseUnavailable
from app.jobs import claims
from app.jobs.capacity import Capacity
from app.jobs.models import jobs
from app.telemetry import context
from tests.support import clusters, databases
from tests.support.clusters import Cluster
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.relay import Relay
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import Forked, run

assert wiring  # imports every module that defines a table

pytestmark = pytest.mark.postgresql

POOL_SIZE = int(databases.POOL_SIZE)


@contextmanager
def relayed(data_dir: Path, **settings: str) -> Iterator[tuple[Server, Relay]]:
    """A server on a data folder whose database is behind a relay."""
    url = make_url(databases.url(data_dir))
    relay = Relay(url.port or 5432, url.host or "127.0.0.1")
    url = url.set(host="127.0.0.1", port=relay.port)
    settings |= {"DATABASE_URL": url.render_as_string(hide_password=False)}
    with Server(data_dir, settings) as server:
        yield server, relay
    relay.cut()


def timed(call: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, float]:
    asked_at = time.monotonic()
    return call(), time.monotonic() - asked_at


def assert_unavailable(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
    assert int(answer.headers["retry-after"]) > 0


@contextmanager
def drained(server: Server, table: str) -> Iterator[list[int]]:
    """A server whose units wait for a table, each of another owner, until no connection is left.

    What their requests were answered is in the list afterwards.
    """
    owners, statuses = [server.register() for _ in range(POOL_SIZE - 1)], []
    changed = [(owner.at(server), owner.upload()["id"]) for owner in owners]
    deadline = time.monotonic() + 20

    def insist(owner: User, document_id: str) -> int:
        while True:
            status = owner.http.patch(f"/documents/{document_id}", json={"folder": "f"}).status_code
            if status != 503 or time.monotonic() > deadline:
                return status

    with ThreadPoolExecutor() as threads, databases.engine(server.data_dir).connect() as conn:
        conn.execute(text(f"LOCK TABLE {table} IN EXCLUSIVE MODE"))
        answers = [threads.submit(insist, *each) for each in changed]
        until(lambda: waiting_for_locks(server.data_dir) >= len(owners))
        yield statuses
        conn.rollback()
        statuses += [each.result() for each in answers]


def test_a_drained_pool_refuses_within_two_seconds(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        with drained(server, "events") as statuses:
            answer, seconds = timed(lambda: user.http.get("/documents"))
            assert_unavailable(answer)
            assert seconds < 2
            assert user.http.get("/livez").status_code == 200
        until(lambda: user.http.get("/documents").status_code == 200, timeout=5)
        assert set(statuses) == {200}


def waiting_for_locks(data_dir: Path) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with databases.engine(data_dir).connect() as conn:
        waiting: int = conn.execute(text(query)).scalar_one()
        return waiting


def test_a_database_that_is_away_and_comes_back(tmp_path: Path) -> None:
    with relayed(tmp_path / "var", LEASE_SECONDS="10") as (server, relay):
        user = server.register()
        waiting = user.start(user.upload()["id"], params={"seconds": 0, "flaky": 1})["id"]
        document_id, working = user.begin(seconds=1.5)
        relay.cut()
        for _ in range(5):
            answer, seconds = timed(lambda: user.http.get(f"/documents/{document_id}"))
            assert_unavailable(answer)
            assert seconds < 2
            assert_unavailable(user.process(document_id))
            assert_unavailable(user.post_file(b"%PDF-1.7 never read"))
            assert user.http.get("/livez").status_code == 200
            ready = until(lambda: (now := user.http.get("/readyz")).status_code == 503 and now, timeout=5)
            assert ready.json()["checks"]["database"] == "failed"
            time.sleep(0.3)
        relay.mend()
        back_at = time.monotonic()
        until(lambda: user.http.get("/readyz").status_code == 200, timeout=5)
        until(lambda: user.http.get(f"/documents/{document_id}").status_code == 200, timeout=5)
        assert time.monotonic() - back_at < 5
        assert [user.finished(job_id)["state"] for job_id in (waiting, working)] == ["SUCCEEDED"] * 2
        assert user.job(working)["attempt"] == 1, "the lease outlived it: the work was not done twice"
        ledger = Ledger(tmp_path / "var")
        ledger.settle()
        ledger.check()


def test_a_database_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with relayed(tmp_path / "var", DATABASE_STATEMENT_TIMEOUT="0.5") as (server, relay):
        user = server.register()
        relay.freeze()
        for call in (lambda: user.http.get("/documents"), lambda: user.post_file(pdf())):
            answer, seconds = timed(call)
            assert_unavailable(answer)
            assert seconds < 6.5, "5 seconds, and none for a farewell that nobody answers"
        assert user.http.get("/livez").status_code == 200
        relay.cut()
        relay.mend()
        until(lambda: user.http.get("/documents").status_code == 200, timeout=5)


@pytest.mark.parametrize("silently", [False, True])
def test_a_document_whose_commit_got_no_answer_keeps_its_file(silently: bool, tmp_path: Path) -> None:  # noqa: FBT001
    with relayed(tmp_path / "var", DATABASE_STATEMENT_TIMEOUT="0.3") as (server, relay):
        user, content = server.register(), pdf("committed")
        loss = relay.lose_answer(b"document.uploaded", b"COMMIT", silently=silently)
        answer = user.post_file(content, key="upload")
        assert loss.happened
        assert_unavailable(answer)
        assert answer.json()["detail"] == "The database did not answer whether this was done."
        again = user.post_file(content, key="upload")
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert user.http.get(f"/documents/{again.json()['id']}/content").content == content
        assert len(user.http.get("/documents").json()["items"]) == 1


@pytest.mark.parametrize(
    ("work", "story"),
    [
        ({"seconds": 0}, ["queued", "started", "succeeded"]),
        ({"seconds": 0, "fail": "permanent"}, ["queued", "started", "failed"]),
        ({"seconds": 0, "flaky": 1}, ["queued", "started", "retried", "started", "succeeded"]),
    ],
)
def test_an_outcome_whose_commit_got_no_answer_is_told_once(
    work: dict[str, Any], story: list[str], tmp_path: Path
) -> None:
    with relayed(tmp_path / "var") as (server, relay):
        user = server.register()
        document_id = user.upload()["id"]
        loss = relay.lose_answer(f"job.{story[2]}".encode(), b"COMMIT")
        user.finished(user.start(document_id, params=work)["id"])
        assert loss.happened
        assert server.stop() == 0
        assert server.restarted(user).story(document_id) == story


def test_a_lease_is_kept_while_the_pool_is_drained(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "2"}) as server:
        user = server.register()
        _, job_id = user.begin(seconds=5)
        with drained(server, "documents"):
            assert_unavailable(user.http.get("/documents"))
            time.sleep(2.5)
        assert (user.finished(job_id)["state"], user.job(job_id)["attempt"]) == ("SUCCEEDED", 1)


def test_connections_that_the_server_ended_are_replaced_unnoticed(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        document_id = user.upload()["id"]
        end_sessions(tmp_path / "var")
        assert user.http.get(f"/documents/{document_id}").status_code == 200
        end_sessions(tmp_path / "var")
        assert user.http.patch(f"/documents/{document_id}", json={"folder": "f"}).status_code == 200


def switch_over(primary: Cluster, standby: Cluster) -> None:
    """Have them change places, with nothing lost."""
    primary.stop()
    standby.promote()
    primary.follow(standby)
    primary.start()


def assert_at_work(user: User, document_id: str) -> None:
    """With what was there before."""
    assert user.http.get("/readyz").status_code == 200
    finished = user.finished(user.start(document_id, force=True)["id"])
    assert finished["state"] == "SUCCEEDED"
    assert user.story(document_id).count("succeeded") == 2


def test_after_a_switchover_sessions_with_the_old_primary_are_replaced(tmp_path: Path) -> None:
    """The address leads to it for a while longer, when it serves as the standby; then the sessions stay there."""
    with clusters.pair() as (primary, standby):
        relay = Relay(primary.port)
        url = f"postgresql+asyncpg://postgres@127.0.0.1:{relay.port}/postgres"
        with Server(tmp_path / "var", {"DATABASE_URL": url}) as server:
            user = server.register()
            document_id = user.upload()["id"]
            user.finished(user.start(document_id)["id"])
            switch_over(primary, standby)
            until(lambda: user.http.get(f"/documents/{document_id}").status_code == 200)
            for _ in range(3):
                assert_unavailable(user.http.patch(f"/documents/{document_id}", json={"folder": "f"}))
                assert user.http.get(f"/documents/{document_id}").status_code == 200, "reads are still served"
            until(lambda: user.http.get("/readyz").status_code == 503)
            relay.lead_to(standby.port)
            until(lambda: user.http.get("/readyz").status_code == 200)
            assert_at_work(user, document_id)
        relay.cut()


def test_of_several_servers_the_one_that_can_be_written_to_is_found(tmp_path: Path) -> None:
    with clusters.pair() as (primary, standby):
        hosts = "&".join(f"host={each.address}" for each in (standby, primary))
        url = f"postgresql+asyncpg://postgres@/postgres?{hosts}"
        with Server(tmp_path / "var", {"DATABASE_URL": url}) as server:
            user = server.register()
            document_id = user.upload()["id"]
            user.finished(user.start(document_id)["id"])
            switch_over(primary, standby)
            until(lambda: user.http.get("/readyz").status_code == 200)
            assert_at_work(user, document_id)
            assert not server.logs("http.failed")


def test_whoever_holds_a_lock_keeps_no_server_from_being_ready(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server, databases.engine(server.data_dir).connect() as conn:
        user = server.register()
        conn.execute(text("SELECT version_num FROM alembic_version FOR UPDATE"))
        for _ in range(4):
            time.sleep(0.5)  # beyond what is remembered
            answer, seconds = timed(lambda: user.http.get("/readyz"))
            assert answer.status_code == 200, answer.json()
            assert seconds < 0.5


def end_sessions(data_dir: Path) -> None:
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with databases.engine(data_dir).connect() as conn:
        conn.execute(text(f"{query} AND pid <> pg_backend_pid()"))


def test_two_migrators_at_once_take_turns(tmp_path: Path) -> None:
    environment = {**os.environ, **databases.settings(tmp_path / "var"), "DATA_DIR": str(tmp_path / "var")}
    starters = [Forked(["migrate"], environment, tmp_path / "log") for _ in range(3)]
    assert [starter.wait(30) for starter in starters] == [0, 0, 0]
    with databases.engine(tmp_path / "var").connect() as conn:
        assert conn.execute(text("SELECT version_num FROM alembic_version")).all() == [(migrations.HEAD,)]


def test_no_index_is_built_or_dropped_in_the_way_of_writes(tmp_path: Path) -> None:
    """But on tables that the same revision has just made: to build one locks its table against all writes."""
    made: set[str] = set()
    blocking: list[str] = []

    def look(_conn: Connection, _cursor: object, statement: str, *_: object) -> None:
        words = statement.split()
        if match := re.match(r"\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)", statement):
            made.add(match[1])
        elif match := re.match(r"\s*CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON (\w+)", statement, re.DOTALL):
            blocking.extend([statement] if match[1] not in made else [])
        elif (words[:2] == ["DROP", "INDEX"] and words[2] != "CONCURRENTLY") or re.search(
            r"\bADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)\b", statement
        ):
            blocking.append(statement)
        elif "alembic_version" in words[1:3] and words[0] != "CREATE":
            made.clear()

    event.listen(Engine, "before_cursor_execute", look)
    try:
        PostgresqlDatabase(databases.url(tmp_path / "var"), pool_size=2, statement_timeout=5).migrate()
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert not blocking


WRONG = [
    ({"database": "no_such_database"}, {}, "does not exist"),
    ({"username": "no_such_role"}, {}, "does not exist"),
    ({}, {"ssl": "verify-full"}, "root certificate"),
]
AWAY = [({"port": 1}, {}, "failed"), ({"host": "no-such-host.invalid"}, {}, "not known")]


@pytest.mark.parametrize(("parts", "query", "reason"), WRONG + AWAY)
def test_what_keeps_a_process_from_starting_is_told_in_one_line(
    parts: dict[str, Any], query: dict[str, str], reason: str, tmp_path: Path
) -> None:
    url = make_url(databases.SERVER).set(**{"password": "s3cret", **parts}).update_query_dict(query)
    env = {"DATABASE_URL": url.render_as_string(hide_password=False), "DATA_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = run("serve", **os.environ | env)
    kind = "configuration" if (parts, query, reason) in WRONG else "database-unavailable"
    assert done.returncode == 1
    assert re.fullmatch(rf"{kind}: DATABASE_URL: postgresql\S+: [^\n]*{reason}[^\n]*\n", done.stderr)
    assert "s3cret" not in done.stderr + done.stdout


def test_a_database_that_is_not_utf8_is_refused() -> None:
    url = databases.create("ENCODING LATIN1 LOCALE 'C'").render_as_string(hide_password=False)
    with pytest.raises(ConfigurationError, match="LATIN1"):
        PostgresqlDatabase(url, pool_size=2, statement_timeout=1).migrate()


@pytest.fixture
async def db(tmp_path: Path) -> Any:
    """The adapter, on a migrated database of its own."""
    db = PostgresqlDatabase(databases.url(tmp_path / "var"), pool_size=4, statement_timeout=0.3)
    await asyncio.to_thread(db.migrate)
    yield db
    await db.close()


@pytest.fixture
def told() -> list[str]:
    return []


async def test_migrations_and_tables_agree(db: PostgresqlDatabase) -> None:
    found = await db.read(lambda conn: compare_metadata(MigrationContext.configure(conn), metadata))
    # The index for searches is there where pg_trgm is.
    assert {getattr(what[-1], "name", "") for _, *what in found} <= {"ix_document_texts_text"}


async def test_a_statement_that_takes_too_long_is_ended(db: PostgresqlDatabase) -> None:
    asked_at = time.monotonic()
    for call in (db.read, db.write):
        with pytest.raises(DatabaseUnavailable):
            await call(lambda conn: conn.execute(text("SELECT pg_sleep(10)")))
    assert time.monotonic() - asked_at < 2
    await db.check()


async def test_a_unit_whose_connection_dies_is_run_again_whole(db: PostgresqlDatabase, told: list[str]) -> None:
    await db.write(lambda conn: conn.execute(text("CREATE TABLE notes (n integer)")))
    runs = []

    def unit(conn: Connection) -> None:
        conn.execute(text("INSERT INTO notes VALUES (1)"))
        after_commit(conn, lambda: told.append("noted"))
        runs.append(conn)
        if len(runs) == 1:
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    await db.write(unit)
    assert (len(runs), told) == (2, ["noted"])
    assert await db.read(lambda conn: conn.scalar(text("SELECT count(*) FROM notes"))) == 1


async def test_a_schema_that_changes_meanwhile_goes_unnoticed(db: PostgresqlDatabase) -> None:
    await db.write(lambda conn: conn.execute(text("CREATE TABLE notes (n integer)")))
    for kind in ("bigint", "text"):
        for call in (db.read, db.write):
            await asyncio.gather(
                *(call(lambda conn: conn.execute(text("SELECT n FROM notes")).all()) for _ in range(9))
            )
        change = text(f"ALTER TABLE notes ALTER COLUMN n TYPE {kind}")
        await db.write(lambda conn, change=change: conn.execute(change))
    for call in (db.read, db.write):
        assert await call(lambda conn: conn.execute(text("SELECT n FROM notes")).all()) == []


async def test_a_cancelled_caller_leaves_a_whole_unit_and_no_connection_behind(
    db: PostgresqlDatabase, told: list[str]
) -> None:
    await db.write(lambda conn: conn.execute(text("CREATE TABLE notes (n integer)")))

    def unit(conn: Connection) -> None:
        conn.execute(text("INSERT INTO notes SELECT 1 FROM pg_sleep(0.05)"))
        conn.execute(text("INSERT INTO notes SELECT 2 FROM pg_sleep(0.05)"))
        after_commit(conn, lambda: told.append("noted"))

    for n in range(20):
        caller = asyncio.create_task(db.write(unit))
        reader = asyncio.create_task(db.read(lambda conn: conn.execute(text("SELECT pg_sleep(0.05)"))))
        await asyncio.sleep(0.008 * n)
        caller.cancel()
        reader.cancel()
        await asyncio.wait([caller, reader])
    await db.check()
    await asyncio.to_thread(until, lambda: len(told) == 20)
    counted = text("SELECT n, count(*) FROM notes GROUP BY n ORDER BY n")
    assert (await db.read(lambda conn: conn.execute(counted).all())) == [(1, 20), (2, 20)]


async def test_a_server_that_only_reads_is_not_ready(db: PostgresqlDatabase, tmp_path: Path) -> None:
    await db.check()
    name = make_url(databases.url(tmp_path / "var")).database
    with databases.engine(tmp_path / "var").begin() as conn:
        conn.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    end_sessions(tmp_path / "var")
    with pytest.raises(DatabaseUnavailable):
        await db.check()
    assert await db.read(lambda conn: conn.scalar(select(func.count()).select_from(documents))) == 0


def test_a_claim_passes_over_what_another_is_taking(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "1"}) as server:
        user = server.register()
        user.begin(seconds=60)
        first, second = (UUID(user.start(user.upload()["id"])["id"]) for _ in range(2))
        engine = databases.engine(server.data_dir)
        with engine.begin() as one, engine.begin() as other:
            one.execute(select(jobs).where(jobs.c.id == first).with_for_update())
            other.execute(text("SET lock_timeout = 1"))
            capacity = Capacity(12, {"process/simulated@1": 12})
            with context.acting("worker:w"):
                claimed = claims.claim_due(other, capacity, 30.0, 0.0)
            assert [job.id for job in claimed] == [second]
            other.rollback()
