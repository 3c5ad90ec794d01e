"""Processes of revision 0007 beside those of this version, and what those of earlier ones have left."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, Connection, MetaData, Table, delete, insert, text, update

from app import migrations
from app.auth.passwords import ARGON2
from app.migrations import online
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.server import Server, until
from tests.support.user import PASSWORD
from tests.support.zygote import Forked

CONTENT = pdf("of before")
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PARAMS = {"seconds": 0.0, "fail": None, "flaky": 0}
ERROR = {"code": "x", "detail": "It failed."}


AS_RELEASED = (  # what lived beside revision 0003, by name
    [
        "CREATE FUNCTION fill_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "CREATE TRIGGER fill_job BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION fill_job()",
    ]
    if databases.POSTGRESQL
    else ["CREATE TRIGGER fill_job_for_0003 AFTER INSERT ON jobs BEGIN UPDATE jobs SET hint_at = NEW.run_at; END"]
)


class Before:
    """What processes of earlier revisions do, statement by statement, knowing nothing of what came later."""

    def __init__(self, data_dir: Path, revision: str) -> None:
        self.data_dir = data_dir
        self.revision = revision
        self.engine = databases.engine(data_dir)

    def migrate(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.engine.connect() as conn:
            config = Config()
            config.set_main_option("script_location", str(Path(migrations.__file__).parent))
            config.attributes["connection"] = conn
            command.upgrade(config, self.revision)
            conn.commit()
            if self.revision == "0005":
                for statement in AS_RELEASED:
                    conn.exec_driver_sql(statement)
                conn.commit()

    def table(self, name: str) -> Table:
        table = Table(name, MetaData(), autoload_with=self.engine, resolve_fks=False)
        for column in table.columns:
            if column.name in {"args", "params", "data", "tags", "error"}:
                column.type = JSON(none_as_null=True)
        return table

    def register(self, email: str) -> UUID:
        user_id, hashed = uuid4(), ARGON2.using(memory_cost=64).hash(PASSWORD)
        row = {"id": user_id.hex, "email": email, "password_hash": hashed, "active": True, "created_at": now()}
        with self.engine.begin() as conn:
            conn.execute(insert(self.table("users")).values(row))
        return user_id

    def path(self, document_id: UUID) -> Path:
        return self.data_dir / "files" / "documents" / str(document_id)[-2:] / str(document_id)

    def store(self, document_id: UUID) -> None:
        self.path(document_id).parent.mkdir(parents=True, exist_ok=True)
        self.path(document_id).write_bytes(CONTENT)

    def upload(self, owner_id: UUID, **values: Any) -> UUID:
        document_id = uuid4()
        row = {"id": document_id.hex, "owner_id": owner_id.hex, "filename": "a.pdf", "content_type": PDF_TYPE}
        row |= {"size": len(CONTENT), "sha256": SHA256, "status": "UPLOADED", "version": 1, "tags": []}
        row |= {"created_at": now(), "updated_at": now(), **values}
        if row["status"] == "UPLOADED":
            self.store(document_id)
        with self.engine.begin() as conn:
            if self.revision >= "0007":
                file = {name: row[name] for name in ("id", "content_type", "size", "sha256", "created_at")}
                conn.execute(insert(self.table("files")).values(file | {"key": f"documents/{document_id}"}))
                row["file_id"] = document_id.hex
            conn.execute(insert(self.table("documents")).values(row))
        return document_id

    def initiate(self, owner_id: UUID) -> UUID:
        return self.upload(owner_id, status="INITIATED", sha256=None, upload_expires_at=now() + timedelta(hours=1))

    def complete(self, document_id: UUID) -> None:
        documents = self.table("documents")
        of_it = update(documents).where(documents.c.id == document_id.hex)
        with self.engine.begin() as conn:
            conn.execute(of_it.values(status="UPLOADED", version=2, sha256=SHA256, updated_at=now()))
            if self.revision >= "0007":
                files = self.table("files")
                conn.execute(update(files).where(files.c.id == document_id.hex).values(sha256=SHA256))

    def delete(self, document_id: UUID) -> None:
        """But for the file: the process ends before it gets there."""
        documents, events = self.table("documents"), self.table("events")
        event = {"id": uuid4().hex, "event": "document.deleted", "at": now(), "actor": "user:x", "data": {}}
        with self.engine.begin() as conn:
            conn.execute(delete(documents).where(documents.c.id == document_id.hex))
            conn.execute(insert(events).values(event | {"document_id": document_id.hex}))
            if self.revision >= "0007":
                files = self.table("files")
                conn.execute(update(files).where(files.c.id == document_id.hex).values(discarded_at=now()))

    def accept(self, owner_id: UUID, document_id: UUID) -> UUID:
        job_id = uuid4()
        row: dict[str, Any] = {"id": job_id.hex, "document_id": document_id.hex, "owner_id": owner_id.hex}
        row |= {"state": "QUEUED", "fence": 0, "tries": 0, "max_tries": 5, "run_at": now(), "queued_at": now()}
        row |= {"progress": 0.0, "dead": False, "created_at": now()}
        if self.revision < "0007":
            row |= {"processor": "simulated", "processor_version": "1", "params": PARAMS}
            row |= {"hint_at": now() + timedelta(seconds=30)}
        if self.revision < "0005":
            del row["queued_at"]
        else:
            file = {"key": f"documents/{document_id}", "content_type": PDF_TYPE, "size": len(CONTENT), "sha256": SHA256}
            args = {"processor": "simulated", "version": "1", "params": PARAMS, "file": file}
            row |= {"queue": "process/simulated@1", "key": f"document:{document_id}", "args": args}
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
        row: dict[str, Any] = {"document_id": document_id.hex, "job_id": job_id.hex, "data": {"by": "old"}}
        row["created_at"] = now()
        if self.revision >= "0005":
            row |= {"processor": "simulated", "processor_version": "1", "params": PARAMS, "input_sha256": SHA256}
        table = self.table("document_results" if self.revision >= "0005" else "results")
        conn.execute(insert(table).values(row))

    def move(self, conn: Connection, document_id: UUID, status: str, job_id: UUID, error: Any = None) -> None:
        documents = self.table("documents")
        values = {"status": status, "job_id": job_id.hex, "error": error, "version": documents.c.version + 1}
        conn.execute(update(documents).where(documents.c.id == document_id.hex).values(values))


def now() -> datetime:
    """As both databases store it, whatever the session's time zone."""
    return datetime.now(UTC) if databases.POSTGRESQL else datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def before(tmp_path: Path, revision: str) -> Iterator[Before]:
    old = Before(tmp_path / "var", revision)
    old.migrate()
    yield old
    old.engine.dispose()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Before]:
    with before(tmp_path, "0007") as old:
        yield old


@pytest.fixture
def without_files(tmp_path: Path) -> Iterator[Before]:
    with before(tmp_path, "0005") as old:
        yield old


@pytest.mark.parametrize("revision", ["0001", "0003", "0005", "0007"])
@pytest.mark.long
def test_rows_in_every_state_are_kept_and_go_on(revision: str, tmp_path: Path) -> None:
    with before(tmp_path, revision) as old:
        every_state_is_kept_and_goes_on(old)


def every_state_is_kept_and_goes_on(old: Before) -> None:
    owner_id = old.register("ada@example.com")
    documents = {state: old.upload(owner_id) for state in ("UPLOADED", "QUEUED", "RUNNING", "LOST", "SUCCEEDED")}
    documents |= {state: old.upload(owner_id) for state in ("FAILED", "DEAD", "CANCELLED")}
    announced = old.initiate(owner_id) if old.revision > "0001" else old.upload(owner_id)
    old.store(announced)
    jobs = {state: old.accept(owner_id, id_) for state, id_ in documents.items() if state != "UPLOADED"}
    for state in jobs.keys() - {"QUEUED", "CANCELLED"}:
        assert old.claim(jobs[state], -1 if state == "LOST" else 30)
    old.end(jobs["SUCCEEDED"], documents["SUCCEEDED"], "SUCCEEDED")
    old.end(jobs["FAILED"], documents["FAILED"], "FAILED", error=ERROR)
    old.end(jobs["DEAD"], documents["DEAD"], "FAILED", error=ERROR, dead=True)
    old.end(jobs["CANCELLED"], documents["CANCELLED"], "CANCELLED", error=ERROR)
    with Server(old.data_dir) as server:
        user = server.log_in("ada@example.com")
        for document_id in documents.values():
            assert user.http.get(f"/documents/{document_id}/content").content == CONTENT
        completed = user.http.post(f"/documents/{announced}/complete-upload").json()
        assert (completed["status"], completed["sha256"]) == ("UPLOADED", SHA256)
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
        Ledger(old.data_dir).check_usage()


def test_each_has_the_files_of_what_the_other_uploads(old: Before) -> None:
    owner_id = old.register("ada@example.com")
    with Server(old.data_dir) as server:
        user = server.log_in("ada@example.com")
        ours = UUID(user.upload(content=CONTENT)["id"])
        assert old.path(ours).read_bytes() == CONTENT
        theirs, announced = old.upload(owner_id), old.initiate(owner_id)
        old.store(announced)
        old.complete(announced)
        for document_id in (theirs, announced):
            assert user.http.get(f"/documents/{document_id}/content").content == CONTENT
            job = user.finished(user.start(str(document_id), params={"seconds": 0})["id"])
            assert job["state"] == "SUCCEEDED"
            result = user.http.get(f"/documents/{document_id}/result").json()
            assert result["input_sha256"] == SHA256
            assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
            until(lambda document_id=document_id: not old.path(document_id).exists())
        Ledger(old.data_dir).check_usage()


def test_what_the_other_deletes_is_swept_and_what_it_has_is_not(old: Before) -> None:
    owner_id = old.register("ada@example.com")
    with Server(old.data_dir, {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        user = server.log_in("ada@example.com")
        kept, *gone = [old.upload(owner_id) for _ in range(30)]
        gone.append(UUID(user.upload()["id"]))
        for document_id in gone:
            old.delete(document_id)
        until(lambda: not any(old.path(document_id).exists() for document_id in gone))
        assert user.http.get(f"/documents/{kept}/content").content == CONTENT
        assert "upkeep" not in user.http.get("/readyz").json()["alarms"]
        Ledger(old.data_dir).check_usage()


@pytest.mark.long
def test_files_of_documents_deleted_before_are_remembered(without_files: Before) -> None:
    """More of them than a sweep would remove on suspicion."""
    owner_id = without_files.register("ada@example.com")
    gone = [without_files.upload(owner_id) for _ in range(30)]
    for document_id in gone:
        without_files.delete(document_id)
    with Server(without_files.data_dir, {"ORPHAN_GRACE_SECONDS": "1"}):
        until(lambda: not any(without_files.path(document_id).exists() for document_id in gone))


@pytest.mark.long
def test_each_runs_the_jobs_that_the_other_accepts(old: Before) -> None:
    owner_id = old.register("ada@example.com")
    with Server(old.data_dir) as server:
        user = server.log_in("ada@example.com")
        document_id = old.upload(owner_id)
        theirs = old.accept(owner_id, document_id)
        assert user.finished(str(theirs))["state"] == "SUCCEEDED"
        ours = user.start(str(document_id), params={"seconds": 0}, force=True)
        assert user.finished(ours["id"])["state"] == "SUCCEEDED"
    with Server(old.data_dir, {"JOB_CONCURRENCY": "0"}) as server:
        user = server.log_in("ada@example.com")
        ours = user.start(str(document_id), params={"seconds": 0}, force=True)
        claimed = old.claim(UUID(ours["id"]))
        assert (claimed["state"], claimed["fence"]) == ("RUNNING", 1)


@pytest.mark.postgresql
def test_an_upload_that_is_completed_while_files_get_their_rows(
    without_files: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner_id = without_files.register("ada@example.com")
    announced = without_files.initiate(owner_id)
    fill = online.by_batch

    def fill_meanwhile(*arguments: str) -> None:
        with without_files.engine.connect() as conn, ThreadPoolExecutor(1) as thread:
            documents = without_files.table("documents")
            completed = {"status": "UPLOADED", "version": 2, "sha256": SHA256}
            conn.execute(update(documents).where(documents.c.id == announced.hex).values(completed))
            commit = thread.submit(lambda: (time.sleep(0.5), conn.commit()))
            fill(*arguments)
            commit.result()

    monkeypatch.setattr(online, "by_batch", fill_meanwhile)
    databases.database(without_files.data_dir).migrate()
    with without_files.engine.connect() as conn:
        assert conn.execute(text("SELECT sha256, discarded_at FROM files")).all() == [(SHA256, None)]


@pytest.mark.postgresql
@pytest.mark.parametrize("step", ["change", "by_batch", "run", "build_index"])
def test_a_migration_that_dies_between_two_steps_is_run_again(
    without_files: Before, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step commits by itself."""
    document_id, work = without_files.upload(without_files.register("ada@example.com")), getattr(online, step)

    def dies(*arguments: Any, **options: Any) -> None:
        if "files" in str(arguments):
            raise RuntimeError("killed")
        work(*arguments, **options)

    with monkeypatch.context() as dying:
        dying.setattr(online, step, dies)
        with pytest.raises(RuntimeError):
            databases.database(without_files.data_dir).migrate()
    databases.database(without_files.data_dir).migrate()
    with without_files.engine.connect() as conn:
        found = conn.execute(text("SELECT d.id FROM documents d JOIN files f ON f.id = d.file_id")).scalars()
        assert [UUID(str(each)) for each in found] == [document_id]
        indexes = conn.execute(text("SELECT indexname FROM pg_indexes WHERE tablename = 'files'")).scalars()
        assert set(indexes) == {"pk_files", "uq_files_key", "ix_files_discarded"}


@pytest.mark.postgresql
def test_a_migration_that_waits_for_a_long_reader_makes_nobody_wait_behind_it(without_files: Before) -> None:
    environment = {**os.environ, **databases.settings(without_files.data_dir), "DATA_DIR": str(without_files.data_dir)}
    slowest = 0.0
    with without_files.engine.connect() as reader, without_files.engine.connect() as other:
        reader.execute(text("SELECT count(*) FROM jobs"))
        migration = Forked(["migrate"], environment, without_files.data_dir / "log")
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            asked_at = time.monotonic()
            other.execute(text("SELECT count(*) FROM jobs"))
            other.rollback()
            slowest = max(slowest, time.monotonic() - asked_at)
            time.sleep(0.01)
    assert migration.wait(30) == 0
    assert 0.2 < slowest < 1.5, "it has waited, and not for long"
    with without_files.engine.connect() as conn:
        assert conn.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD
