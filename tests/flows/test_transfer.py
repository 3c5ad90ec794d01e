"""A service that moves: what its users have is all there afterwards, to the byte, and what was begun goes on."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, func, insert, make_url, select, update
from uuid_utils.compat import uuid7

from app import transfer, wiring
from app.audit.verify import Verification
from app.auth.models import token_families, users
from app.database import Database, metadata, now
from app.documents.models import document_tags, documents
from app.errors import StorageUnavailable
from app.events import append, events, seals
from app.events.catalogue.accounts import UserRegistered
from app.events.catalogue.base import Event
from app.events.catalogue.documents import DocumentEdited
from app.events.catalogue.jobs import JobRetried
from app.events.failure import Failure
from app.events.seals import Seal
from app.storage.local import LocalStorage
from app.telemetry import context
from app.transfer import Transfer, TransferError
from tests.flows.test_object_storage import ENVIRONMENT
from tests.support import databases
from tests.support.databases import database
from tests.support.direct_uploads import announce, complete, put, sha256
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.seaweed import Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.zygote import run

assert wiring  # imports every module that defines a table

RETRIED = JobRetried(attempt=1, fence=1, delay=3.0, error=Failure(code="c", detail="É \ud800"))
WORK = {"params": {"seconds": 0}}
FAILURE = {"params": {"seconds": 0, "fail": "permanent"}}
LATER = {"params": {"seconds": 0, "flaky": 1}}
# Three documents, and two direct uploads that are not complete: there is nothing yet to tell whether they are correct.
ALL = "stored files: 5 copied, 0 found there, 0 missing or damaged"
AGAIN = "stored files: 2 copied, 3 found there, 0 missing or damaged"


class Life:
    """What somebody had done, and been answered, before the service moved."""

    def __init__(self, server: Server) -> None:
        self.user = user = server.register("ada@example.com")
        self.content = pdf("É in a moved file")
        options = {"metadata": {"folder": "Ünïcode/\U0001f600", "tags": ["a", "É", "z"]}, "key": "upload"}
        self.uploaded = user.post_file(self.content, "naïve \U0001f600.pdf", **options)
        completed, failed, unfinished = self.uploaded.json()["id"], user.upload()["id"], user.upload()["id"]
        self.processed = user.process(completed, key="process", **WORK)
        user.finished(self.processed.json()["job"]["id"])
        user.finished(user.start(failed, **FAILURE)["id"])
        pair = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]}).json()
        self.refresh_token = pair["refresh_token"]
        wanted = {"name": "É", "scopes": ["documents:read"]}
        self.api_key = user.http.post("/api-keys", json=wanted, headers={"Idempotency-Key": "key"}).json()
        announced = {"sha256": sha256(self.content)}
        self.unsent = announce(user, self.content)
        self.sent = [announce(user, self.content), announce(user, self.content, **announced)]
        assert [put(each, self.content) for each in self.sent] == [200, 200]
        # It fails at once and is tried again in two seconds, or later: it is moved as it waits.
        self.unfinished = user.start(unfinished, **LATER)["id"]
        while user.job(self.unfinished)["attempt"] == 0:
            pass
        assert user.http.delete(f"/documents/{user.upload()['id']}?permanent=true").status_code == 204
        self.completed = completed
        self.seen = self.look(user)

    def look(self, user: User) -> list[Any]:
        """What every call that reads answers of what was finished; and how much there is, but for jobs."""
        own = f"/documents/{self.completed}"
        account = user.http.get("/auth/me").json()
        account["usage"].pop("jobs")
        paths = [
            own,
            f"{own}/content",
            f"{own}/result",
            f"{own}/timeline",
            "/documents?tag=É&sort=filename",
        ]
        answers = [user.http.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        return [account, *(answer.content for answer in answers)]

    @property
    def sent_ids(self) -> set[UUID]:
        return {UUID(each["document_id"]) for each in self.sent}

    def uploads(self, data_dir: Path) -> list[tuple[UUID, Path]]:
        """The files that are complete, by the ids of their documents."""
        return sorted((id_, file) for id_, file in Ledger(data_dir).files().items() if id_ not in self.sent_ids)

    def goes_on(self, server: Server) -> None:
        user = server.log_in(self.user.email)
        assert self.look(user) == self.seen
        again = user.post_file(
            self.content,
            "naïve \U0001f600.pdf",
            metadata={"folder": "Ünïcode/\U0001f600", "tags": ["a", "É", "z"]},
            key="upload",
        )
        assert (again.status_code, again.content) == (201, self.uploaded.content)
        again = user.process(self.completed, key="process", **WORK)
        assert (again.status_code, again.content) == (202, self.processed.content)
        assert again.headers["idempotent-replayed"] == "true"
        refreshed = user.http.post("/auth/refresh", json={"refresh_token": self.refresh_token})
        assert refreshed.status_code == 200
        known = user.http.get("/documents", headers={"Authorization": f"Bearer {self.api_key['key']}"})
        assert known.status_code == 200
        assert [complete(user, each).json()["sha256"] for each in self.sent] == [sha256(self.content)] * 2
        assert complete(user, self.unsent).json()["code"] == "upload-missing"
        assert user.finished(self.unfinished)["state"] == "SUCCEEDED"
        user.finished(user.start(user.upload()["id"])["id"])


def sqlite(data_dir: Path) -> str:
    return f"sqlite+aiosqlite:///{data_dir / 'app.db'}"


def on_sqlite(data_dir: Path, **settings: str) -> Server:
    """Also where the database of this run is another."""
    return Server(data_dir, {"DATABASE_URL": sqlite(data_dir), **settings})


def transferred(target: Path, *options: object, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(target), **databases.settings(target), **settings}
    return run("transfer", *map(str, options), **environment)


def moved(target: Path, *options: object, **settings: str) -> str:
    done = transferred(target, *options, **settings)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refused(target: Path, *options: object, **settings: str) -> str:
    """The one line that says why."""
    done = transferred(target, *options, **settings)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    return line


def contents(data_dir: Path) -> dict[str, set[Any]]:
    ledger = Ledger(data_dir)
    return {table.name: set(map(repr, ledger.rows(select(table)))) for table in metadata.sorted_tables}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Life, Path]]:
    folder = tmp_path_factory.mktemp("lived") / "var"
    with on_sqlite(folder) as server:
        life = Life(server)
        assert server.stop() == 0
        yield life, folder


@pytest.fixture
def old(lived: tuple[Life, Path], tmp_path: Path) -> Life:
    """What there is of a stopped service on SQLite and a disk, in `old`."""
    life, folder = lived
    shutil.copytree(folder, tmp_path / "old")
    return life


def test_a_service_moves_and_goes_on(old: Life, tmp_path: Path) -> None:
    broker = {"BROKER_URL": "redis://127.0.0.1:1"} if databases.POSTGRESQL else {}
    told = moved(tmp_path / "new", "--from-data-dir", tmp_path / "old", **broker)
    assert "users: 1 rows" in told
    assert ALL in told
    assert AGAIN in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    shorter, longer, _ = (file for _, file in old.uploads(tmp_path / "new"))
    shorter.write_bytes(b"half a fi")
    longer.write_bytes(longer.read_bytes() + b"more")
    told = moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert "stored files: 4 copied, 1 found there, 0 missing or damaged" in told
    with Server(tmp_path / "new") as server:
        old.goes_on(server)
        ledger = Ledger(tmp_path / "new")
        ledger.settle()
        ledger.check()
        assert server.stop() == 0
    before = contents(tmp_path / "new")
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert line.startswith("transfer: the target holds ")
    assert "that the source has not, or has otherwise: it is another service's, or one of the two has served" in line
    assert contents(tmp_path / "new") == before


@pytest.mark.long
def test_there_and_back_by_way_of_a_bucket(old: Life, tmp_path: Path, prefix: Prefix) -> None:
    bucket = {"STORAGE_URL": prefix.url(), **ENVIRONMENT}
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old", **bucket)
    assert len(prefix.objects()) == 5
    with Server(tmp_path / "new", bucket) as server:
        assert old.look(server.log_in(old.user.email)) == old.seen
        assert server.stop() == 0
    back = {"DATABASE_URL": sqlite(tmp_path / "back"), "STORAGE_URL": "", **ENVIRONMENT}
    there = databases.url(tmp_path / "new")
    moved(tmp_path / "back", "--from-database-url", there, "--from-storage-url", prefix.url(), **back)
    with on_sqlite(tmp_path / "back") as server:
        old.goes_on(server)


@pytest.mark.usefixtures("old")
def test_files_that_the_database_does_not_know_are_not_left_behind_in_silence(tmp_path: Path) -> None:
    elsewhere = {"STORAGE_URL": f"file://{tmp_path / 'files'}"}
    line = refused(tmp_path / "new", "--from-storage-url", f"file://{tmp_path / 'old/files'}", **elsewhere)
    assert line == "transfer: the source storage has files, and the database of the target knows none of them"


@pytest.mark.long
def test_first_only_the_files_move_then_only_the_rows(old: Life, tmp_path: Path) -> None:
    elsewhere = {"STORAGE_URL": f"file://{tmp_path / 'files'}"}
    settings = {"DATABASE_URL": sqlite(tmp_path / "old"), **elsewhere}
    told = moved(tmp_path / "old", "--from-storage-url", f"file://{tmp_path / 'old/files'}", **settings)
    assert told.splitlines() == [ALL]
    shutil.rmtree(tmp_path / "old/files")
    told = moved(tmp_path / "new", "--from-database-url", sqlite(tmp_path / "old"), **elsewhere)
    assert "stored files" not in told
    with Server(tmp_path / "new", elsewhere) as server:
        old.goes_on(server)


# Of the ten tables all but two have rows.
def test_broken_off_anywhere_and_started_again(old: Life, tmp_path: Path) -> None:
    def killed(fault: str) -> bool:
        done = transferred(tmp_path / "new", "--from-data-dir", tmp_path / "old", FAULT=fault)
        return done.returncode == -signal.SIGKILL

    assert all(killed(f"transfer.after_batch:{n}") for n in (1, 4, 8))
    in_the_way = tmp_path / "new/files/documents"
    in_the_way.touch()
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert line == f"storage-unavailable: {StorageUnavailable.explanation}"
    in_the_way.unlink()
    assert killed("transfer.after_file:2")
    assert "0 missing or damaged" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    # What was half received is an orphan like any other.
    with Server(tmp_path / "new", {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        old.goes_on(server)
        ledger = Ledger(tmp_path / "new")
        ledger.settle()
        ledger.check()


def test_missing_and_damaged_files_are_named_and_the_rest_is_copied(old: Life, tmp_path: Path) -> None:
    (missing, file), (damaged, damaged_file), (found, _) = old.uploads(tmp_path / "old")
    file.unlink()
    damaged_file.write_bytes(damaged_file.read_bytes()[:-1] + b"?")
    done = transferred(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert done.returncode == 1
    assert f"documents/{missing} is missing at the source" in done.stdout
    assert f"documents/{damaged} is damaged at the source" in done.stdout
    assert "3 copied, 0 found there, 2 missing or damaged" in done.stdout
    assert Ledger(tmp_path / "new").files().keys() == {found, *old.sent_ids}
    assert not [*(tmp_path / "new/files/staging").iterdir()]


@pytest.mark.usefixtures("old")
def test_files_are_not_brought_to_those_of_another_service(tmp_path: Path) -> None:
    (tmp_path / f"other/mark/1 {uuid7()}").mkdir(parents=True)
    others = {"STORAGE_URL": f"file://{tmp_path / 'other'}"}
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old", **others)
    assert line.startswith("transfer: the target storage is another service's")
    assert not (tmp_path / "other/documents").exists()
    assert ALL in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")


@pytest.mark.usefixtures("old")
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path) -> None:
    new, source = tmp_path / "new", ("--from-data-dir", tmp_path / "old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "old")
    assert refused(new).startswith("transfer: say what to copy")
    same = {"DATABASE_URL": sqlite(tmp_path / "old")}
    assert "DATABASE_URL names what is to be transferred" in refused(link, *source, **same)
    assert "STORAGE_URL names what is to be" in refused(new, *source, STORAGE_URL=f"file://{link}/files")
    assert "there is nothing to transfer at" in refused(new, "--from-data-dir", tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()
    assert "DATABASE_URL: must be" in refused(new, "--from-database-url", "mysql://secret@db/name")
    with databases.past(make_url(sqlite(tmp_path / "old"))).begin() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "the source database is at revision 0000" in refused(new, *source)
    (tmp_path / "locked/app.db.lock").mkdir(parents=True)
    (tmp_path / "locked/app.db").touch()
    line = refused(new, "--from-database-url", sqlite(tmp_path / "locked"))
    assert line == f"configuration: DATABASE_URL: {tmp_path}/locked/app.db.lock: Is a directory"


# What somebody does to a database when the transfer has reported that line, and then is gone again.
CHANGES: dict[str, tuple[str, Callable[[Connection], Any]]] = {
    "a value while rows are copied": (
        metadata.sorted_tables[-1].name,
        lambda conn: conn.execute(update(documents).values(version=9)),
    ),
    "a value while files are copied": ("stored files: ", lambda conn: conn.execute(update(users).values(active=False))),
    "a row less after that": ("rows: every one", lambda conn: conn.execute(delete(token_families))),
    "an event after that": ("rows: every one", lambda conn: appended(conn, UserRegistered())),
}


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("where", ["old", "new"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_written_meanwhile_is_noticed(tmp_path: Path, where: str, change: str) -> None:
    begins, write = CHANGES[change]

    def report(line: str) -> None:
        if line.startswith(begins):
            url = sqlite(tmp_path / "old") if where == "old" else databases.url(tmp_path / "new")
            with databases.past(make_url(url)).begin() as conn:
                write(conn)

    with pytest.raises(TransferError, match="has changed meanwhile: stop every process"):
        asyncio.run(in_this_process(tmp_path).run(report))


@pytest.mark.usefixtures("old")
def test_a_server_that_starts_and_stops_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Though nobody asked it for anything."""

    def report(line: str) -> None:
        if line.startswith("rows: every one"):
            with Server(tmp_path / "new") as server:
                server.stop()

    with pytest.raises(TransferError, match="has changed meanwhile"):
        asyncio.run(in_this_process(tmp_path).run(report))


@pytest.mark.usefixtures("old")
def test_a_file_that_the_target_does_not_give_back_is_noticed(tmp_path: Path) -> None:
    class Forgetful(LocalStorage):
        def read(self, key: str, start: int, length: int, **options: int) -> AsyncIterator[bytes]:
            return super().read(key, start, min(length, 9), **options)

    target = Forgetful(tmp_path / "new/files")
    with pytest.raises(TransferError, match="the target does not give back what was written to it"):
        asyncio.run(replace(in_this_process(tmp_path), target_storage=target).run(print))


def in_this_process(folder: Path) -> Transfer:
    storages = [LocalStorage(folder / name / "files") for name in ("old", "new")]
    return Transfer(database(folder / "new"), database(folder / "old", of_this_run=False), *storages)


def test_tables_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From SQLite to the engine of this run, and back: each sorts in its own way. What was sealed can be verified."""
    monkeypatch.setattr(seals, "LAG", -60.0)
    monkeypatch.setattr(transfer, "BATCH", 7)
    monkeypatch.setattr(transfer, "PROGRESS", 14)
    told: list[str] = []

    async def scenario() -> None:
        old = signing(database(tmp_path / "old", of_this_run=False))
        await filled(old, 23)
        await seals.seal(old, unanchored)
        assert await Transfer(source_db=old, target_db=database(tmp_path / "new")).run(told.append)
        new, back = signing(database(tmp_path / "new")), database(tmp_path / "back", of_this_run=False)
        # What is numbered goes on after what was copied.
        await new.write(lambda conn: appended(conn, RETRIED))
        await seals.seal(new, unanchored)
        assert await new.read(lambda conn: conn.scalar(select(func.max(events.c.seq)))) == 24
        assert await Transfer(source_db=new, target_db=back).run(told.append)
        for db in (signing(database(tmp_path / "new")), signing(database(tmp_path / "back", of_this_run=False))):
            verification = Verification(db.audit_keys)
            await verification.run(db)
            assert str(verification) == "events: 24, of which 0 unsigned and 0 not sealed yet; seals: 2; wrong: 0"
            await db.close()

    asyncio.run(scenario())
    assert {"documents: 23 rows", "document_tags: 276 rows", "events: 14 rows so far", "events: 24 rows"} < set(told)


def signing(db: Database) -> Database:
    db.audit_keys.append(b"k" * 32)
    return db


async def unanchored(_seal: Seal) -> None:
    pass


def appended(conn: Connection, event: Event, **subject: Any) -> None:
    with context.acting(context.OPERATOR):
        append(conn, event, **subject)


async def filled(db: Database, count: int) -> None:
    """With accounts, tags in every case, and the events of both."""
    await asyncio.to_thread(db.migrate)

    def fill(conn: Connection) -> None:
        owner, ids = uuid7(), [uuid7() for _ in range(count)]
        account = {"email": "a@example.com", "password_hash": "x", "active": True, "created_at": now()}
        conn.execute(insert(users).values(id=owner, **account))
        texts = {"filename": "É.pdf", "content_type": "application/pdf", "sha256": "0" * 64, "status": "UPLOADED"}
        document = {"owner_id": owner, "size": 2**40, "version": 1, "tags": ["a"], **texts}
        rows = [{"id": each, "file_id": each, **document} for each in ids]
        conn.execute(insert(documents).values(created_at=now(), updated_at=now()), rows)
        tags = ["a", "B", "b", "É", "é", "z", "Z", "_", "ß", "ss", "-", "\U0001f600"]
        conn.execute(insert(document_tags), [{"tag": tag, "document_id": each} for tag in tags for each in ids])
        for each in ids[1:]:
            appended(conn, DocumentEdited(fields=["É", "\U0001f600"]), document_id=each)
        appended(conn, RETRIED, document_id=ids[0])

    await db.write(fill)
