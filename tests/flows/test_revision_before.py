"""Processes of revision 0003 beside those of this version, and what they have left: neither notices the other."""

import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Connection, MetaData, Table, insert, select, text, update

from app import migrations
from app.auth.passwords import ARGON2
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.server import Server, until
from tests.support.user import PASSWORD
from tests.support.zygote import Forked

CONTENT = pdf("of 0003")
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PARAMS = {"seconds": 0.0, "fail": None, "flaky": 0}
ERROR = {"code": "x", "detail": "It failed."}


class Revision0003:
    """What a process of that revision does, statement by statement, knowing nothing of what came later."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.engine = databases.engine(data_dir)

    def migrate(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.engine.connect() as conn:
            config = Config()
            config.set_main_option("script_location", str(Path(migrations.__file__).parent))
            config.attributes["connection"] = conn
            command.upgrade(config, "0003")
            conn.commit()

    def table(self, name: str) -> Table:
        table = Table(name, MetaData(), autoload_with=self.engine, resolve_fks=False)
        for column in table.columns:
            if column.name in {"params", "data", "tags", "error"}:
                column.type = JSON(none_as_null=True)
        return table

    def register(self, email: str) -> UUID:
        user_id, hashed = uuid4(), ARGON2.using(memory_cost=64).hash(PASSWORD)
        row = {"id": user_id.hex, "email": email, "password_hash": hashed, "active": True, "created_at": now()}
        with self.engine.begin() as conn:
            conn.execute(insert(self.table("users")).values(row))
        return user_id

    def upload(self, owner_id: UUID) -> UUID:
        document_id = uuid4()
        path = self.data_dir / "files" / "documents" / str(document_id)[-2:] / str(document_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        row = {"id": document_id.hex, "owner_id": owner_id.hex, "filename": "a.pdf", "content_type": PDF_TYPE}
        row |= {"size": len(CONTENT), "sha256": SHA256, "status": "UPLOADED", "version": 1, "tags": []}
        row |= {"created_at": now(), "updated_at": now()}
        with self.engine.begin() as conn:
            conn.execute(insert(self.table("documents")).values(row))
        return document_id

    def accept(self, owner_id: UUID, document_id: UUID) -> UUID:
        job_id = uuid4()
        row: dict[str, Any] = {"id": job_id.hex, "document_id": document_id.hex, "owner_id": owner_id.hex}
        row |= {"processor": "simulated", "processor_version": "1", "params": PARAMS, "state": "QUEUED"}
        row |= {"fence": 0, "tries": 0, "max_tries": 5, "run_at": now(), "hint_at": now() + timedelta(seconds=30)}
        row |= {"progress": 0.0, "dead": False, "created_at": now()}
        with self.engine.begin() as conn:
            self.move(conn, document_id, "PROCESSING", job_id)
            conn.execute(insert(self.table("jobs")).values(row))
        return job_id

    def claim(self, job_id: UUID, lease: float = 30) -> Any:
        jobs = self.table("jobs")
        values = {"state": "RUNNING", "fence": jobs.c.fence + 1, "tries": jobs.c.tries + 1, "locked_by": "old"}
        values |= {"locked_until": now() + timedelta(seconds=lease), "started_at": now()}
        queued = (jobs.c.id == job_id.hex, jobs.c.state == "QUEUED")
        with self.engine.begin() as conn:
            return conn.execute(update(jobs).where(*queued).values(values).returning(jobs)).mappings().one_or_none()

    def end(self, job_id: UUID, document_id: UUID, state: str, **values: Any) -> None:
        jobs = self.table("jobs")
        values |= {"state": state, "finished_at": now(), "locked_by": None, "locked_until": None}
        with self.engine.begin() as conn:
            conn.execute(update(jobs).where(jobs.c.id == job_id.hex).values(values))
            status = "COMPLETED" if state == "SUCCEEDED" else "FAILED"
            if state == "SUCCEEDED":
                self.publish(conn, job_id, document_id)
            self.move(conn, document_id, status, job_id, values.get("error"))

    def publish(self, conn: Connection, job_id: UUID, document_id: UUID) -> None:
        conn.exec_driver_sql(
            "INSERT INTO results (document_id, job_id, data, created_at) VALUES "  # noqa: S608 - ids of our own
            f"('{document_id.hex}', '{job_id.hex}', '{{\"by\": \"old\"}}', '{now():%Y-%m-%d %H:%M:%S.%f}') "
            "ON CONFLICT (document_id) DO UPDATE SET job_id = excluded.job_id, data = excluded.data,"
            " created_at = excluded.created_at"
        )

    def move(self, conn: Connection, document_id: UUID, status: str, job_id: UUID, error: Any = None) -> None:
        documents = self.table("documents")
        values = {"status": status, "job_id": job_id.hex, "error": error, "version": documents.c.version + 1}
        conn.execute(update(documents).where(documents.c.id == document_id.hex).values(values))

    def result(self, document_id: UUID) -> Any:
        results = self.table("results")
        with self.engine.connect() as conn:
            return conn.execute(select(results).where(results.c.document_id == document_id.hex)).mappings().one()


def now() -> datetime:
    """As both databases store it, whatever the session's time zone."""
    return datetime.now(UTC) if databases.POSTGRESQL else datetime.now(UTC).replace(tzinfo=None)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Revision0003]:
    old = Revision0003(tmp_path / "var")
    old.migrate()
    yield old
    old.engine.dispose()


def test_rows_in_every_state_are_kept_and_go_on(old: Revision0003) -> None:
    owner_id = old.register("ada@example.com")
    documents = {state: old.upload(owner_id) for state in ("UPLOADED", "QUEUED", "RUNNING", "LOST", "SUCCEEDED")}
    documents |= {state: old.upload(owner_id) for state in ("FAILED", "DEAD", "CANCELLED")}
    jobs = {state: old.accept(owner_id, id_) for state, id_ in documents.items() if state != "UPLOADED"}
    for state in jobs.keys() - {"QUEUED", "CANCELLED"}:
        assert old.claim(jobs[state], -1 if state == "LOST" else 30)
    old.end(jobs["SUCCEEDED"], documents["SUCCEEDED"], "SUCCEEDED")
    old.end(jobs["FAILED"], documents["FAILED"], "FAILED", error=ERROR)
    old.end(jobs["DEAD"], documents["DEAD"], "FAILED", error=ERROR, dead=True)
    old.end(jobs["CANCELLED"], documents["CANCELLED"], "CANCELLED", error=ERROR)
    with Server(old.data_dir) as server:
        user = server.log_in("ada@example.com")
        for state in ("QUEUED", "LOST"):
            job = user.finished(str(jobs[state]))
            assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1 + (state == "LOST"))
        running = user.job(str(jobs["RUNNING"]))
        assert (running["state"], running["processor"], running["params"]) == ("RUNNING", "simulated", PARAMS)
        for state in ("SUCCEEDED", "FAILED", "CANCELLED"):
            assert user.job(str(jobs[state]))["state"] == state
        assert [each["id"] for each in user.http.get("/jobs?dead=true").json()["items"]] == [str(jobs["DEAD"])]
        result = user.http.get(f"/documents/{documents['SUCCEEDED']}/results/simulated").json()
        assert (result["job_id"], result["data"]) == (str(jobs["SUCCEEDED"]), {"by": "old"})
        assert (result["processor_version"], result["params"], result["input_sha256"]) == ("1", PARAMS, SHA256)
        again = user.process(str(documents["SUCCEEDED"]), params={"seconds": 0})
        assert (again.status_code, again.json()["started"]) == (200, False)
        for state in ("UPLOADED", "FAILED", "CANCELLED"):
            job = user.start(str(documents[state]), params={"seconds": 0})
            assert user.finished(job["id"])["state"] == "SUCCEEDED"


def test_each_runs_what_the_other_accepts_and_reads_what_it_publishes(old: Revision0003) -> None:
    owner_id = old.register("ada@example.com")
    with Server(old.data_dir, {"JOB_CONCURRENCY": "0"}) as server:
        user = server.log_in("ada@example.com")
        # Accepted here, run there.
        document_id = UUID(user.upload()["id"])
        job_id = UUID(user.start(str(document_id))["id"])
        claimed = old.claim(job_id)
        assert (claimed["processor"], claimed["processor_version"], claimed["params"]) == ("simulated", "1", PARAMS)
        assert claimed["hint_at"] is not None
        assert old.claim(job_id) is None
        old.end(job_id, document_id, "SUCCEEDED")
        result = user.http.get(f"/documents/{document_id}/result").json()
        assert (result["data"], result["processor"]) == ({"by": "old"}, "simulated")
        assert user.http.get(f"/documents/{document_id}/results/simulated").json() == result
        # Accepted there, run here.
        document_id = old.upload(owner_id)
        job_id = old.accept(owner_id, document_id)
        server.stop()
        user = server.restarted(user, JOB_CONCURRENCY="4")
        assert user.finished(str(job_id))["state"] == "SUCCEEDED"
        published = old.result(document_id)
        assert UUID(str(published["job_id"])) == job_id
        assert published["data"]["simulated"] is True
        # Run again there: theirs is in the place of ours, for both.
        job_id = old.accept(owner_id, document_id)
        until(lambda: user.job(str(job_id))["state"] == "SUCCEEDED")
        assert UUID(str(old.result(document_id)["job_id"])) == job_id


def test_a_job_of_theirs_whose_worker_dies_is_rescued_here(old: Revision0003) -> None:
    old.register("ada@example.com")
    with Server(old.data_dir, {"LEASE_SECONDS": "1"}) as server:
        user = server.log_in("ada@example.com")
        document_id = UUID(user.upload()["id"])
        with old.engine.begin() as conn:
            job_id = uuid4()
            old.move(conn, document_id, "PROCESSING", job_id)
        jobs = old.table("jobs")
        owner = UUID(user.document(str(document_id))["owner_id"])
        row: dict[str, Any] = {"id": job_id.hex, "document_id": document_id.hex, "owner_id": owner.hex}
        row |= {"processor": "simulated", "processor_version": "1", "params": PARAMS, "state": "RUNNING"}
        row |= {"fence": 1, "tries": 1, "max_tries": 5, "run_at": now(), "hint_at": now(), "locked_by": "old"}
        row |= {"locked_until": now(), "progress": 0.0, "dead": False, "created_at": now(), "started_at": now()}
        with old.engine.begin() as conn:
            conn.execute(insert(jobs).values(row))
        finished = user.finished(str(job_id))
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 2)


@pytest.mark.postgresql
def test_a_migration_that_waits_for_a_long_reader_makes_nobody_wait_behind_it(old: Revision0003) -> None:
    environment = {**os.environ, **databases.settings(old.data_dir), "DATA_DIR": str(old.data_dir)}
    slowest = 0.0
    with old.engine.connect() as reader, old.engine.connect() as other:
        reader.execute(text("SELECT count(*) FROM jobs"))
        migration = Forked(["migrate"], environment, old.data_dir / "log")
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            asked_at = time.monotonic()
            other.execute(text("SELECT count(*) FROM jobs"))
            other.rollback()
            slowest = max(slowest, time.monotonic() - asked_at)
            time.sleep(0.01)
    assert migration.wait(30) == 0
    assert 0.2 < slowest < 1.5, "it has waited, and not for long"
    with old.engine.connect() as conn:
        assert conn.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD
