"""A service that moves: what its users have is all there afterwards, to the byte, and what was begun goes on."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from app import wiring
from app.database import metadata
from app.database.sqlite import SqliteDatabase
from app.storage.local import LocalStorage
from app.transfer import Transfer, TransferError
from tests.flows.test_object_storage import ENVIRONMENT
from tests.support import databases
from tests.support.direct_uploads import announce, complete, put, sha256
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.seaweed import Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.zygote import run
from tests.unit.test_transfer_rows import database

assert wiring  # imports every module that defines a table

CONTENT = pdf("sent by itself")
WORK = {"params": {"seconds": 0}}
FAILURE = {"params": {"seconds": 0, "fail": "permanent"}}
LATER = {"params": {"seconds": 0, "flaky": 1}}


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
        # It fails at once and is tried again in two seconds, or later: it is moved as it waits.
        self.unfinished = user.start(unfinished, **LATER)["id"]
        while user.job(self.unfinished)["attempt"] == 0:
            pass
        self.completed = completed
        self.seen = self.look(user)

    def look(self, user: User) -> list[Any]:
        """What every call that reads answers of what was finished."""
        own = f"/documents/{self.completed}"
        paths = [
            "/auth/me",
            own,
            f"{own}/content",
            f"{own}/result",
            f"{own}/timeline",
            "/documents?tag=É&sort=filename",
        ]
        answers = [user.http.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        return [answer.content for answer in answers]

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
        assert user.finished(self.unfinished)["state"] == "SUCCEEDED"
        user.finished(user.start(user.upload()["id"])["id"])


def sqlite(data_dir: Path) -> str:
    return f"sqlite+aiosqlite:///{data_dir / 'app.db'}"


def on_sqlite(data_dir: Path, **settings: str) -> Server:
    """Also where the database of this run is another."""
    return Server(data_dir, {"DATABASE_URL": sqlite(data_dir), **settings})


def transfer(target: Path, *options: object, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(target), **databases.settings(target), **settings}
    return run("transfer", *map(str, options), **environment)


def moved(target: Path, *options: object, **settings: str) -> str:
    done = transfer(target, *options, **settings)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refused(target: Path, *options: object, **settings: str) -> str:
    """The one line that says why."""
    done = transfer(target, *options, **settings)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    return line


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
    told = moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert "users: 1 rows" in told
    assert "files: 3 copied, 0 found there, 0 missing or damaged" in told
    again = moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert "files: 0 copied, 3 found there" in again
    with Server(tmp_path / "new") as server:
        old.goes_on(server)
        ledger = Ledger(tmp_path / "new")
        ledger.settle()
        ledger.check()


@pytest.mark.postgresql
@pytest.mark.usefixtures("old")
def test_where_it_moves_to_there_may_be_a_broker(tmp_path: Path) -> None:
    told = moved(tmp_path / "new", "--from-data-dir", tmp_path / "old", BROKER_URL="redis://127.0.0.1:1")
    assert "rows: every one compared" in told
    assert "files: 3 copied" in told


def test_there_and_back_by_way_of_a_bucket(old: Life, tmp_path: Path, prefix: Prefix) -> None:
    bucket = {"STORAGE_URL": prefix.url(), **ENVIRONMENT}
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old", **bucket)
    assert len(prefix.objects()) == 3
    with Server(tmp_path / "new", bucket) as server:
        assert old.look(server.log_in(old.user.email)) == old.seen
        assert server.stop() == 0
    back = {"DATABASE_URL": sqlite(tmp_path / "back"), "STORAGE_URL": "", **ENVIRONMENT}
    there = databases.url(tmp_path / "new")
    moved(tmp_path / "back", "--from-database-url", there, "--from-storage-url", prefix.url(), **back)
    with on_sqlite(tmp_path / "back") as server:
        old.goes_on(server)


def test_only_the_files_move(old: Life, tmp_path: Path) -> None:
    elsewhere = {"DATABASE_URL": sqlite(tmp_path / "old"), "STORAGE_URL": f"file://{tmp_path / 'files'}"}
    told = moved(tmp_path / "old", "--from-storage-url", f"file://{tmp_path / 'old/files'}", **elsewhere)
    assert "rows" not in told
    with on_sqlite(tmp_path / "old", **elsewhere) as server:
        old.goes_on(server)


def test_only_the_database_moves(old: Life, tmp_path: Path) -> None:
    stay = {"STORAGE_URL": f"file://{tmp_path / 'old/files'}"}
    told = moved(tmp_path / "new", "--from-database-url", sqlite(tmp_path / "old"), **stay)
    assert "files" not in told
    with Server(tmp_path / "new", stay) as server:
        old.goes_on(server)


# Of the ten tables all but two have rows, and there are three files.
@pytest.mark.parametrize("fault", [*(f"transfer.after_batch:{n}" for n in (1, 4, 8)), "transfer.after_file:2"])
def test_killed_and_started_again(old: Life, tmp_path: Path, fault: str) -> None:
    done = transfer(tmp_path / "new", "--from-data-dir", tmp_path / "old", FAULT=fault)
    assert done.returncode == -signal.SIGKILL
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    # What was half received is an orphan like any other.
    with Server(tmp_path / "new", {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        old.goes_on(server)
        ledger = Ledger(tmp_path / "new")
        ledger.settle()
        ledger.check()


@pytest.mark.usefixtures("old")
def test_missing_and_damaged_files_are_named_and_the_rest_is_copied(tmp_path: Path) -> None:
    files = Ledger(tmp_path / "old").files()
    missing, damaged, _ = sorted(files)
    files[missing].unlink()
    files[damaged].write_bytes(files[damaged].read_bytes()[:-1] + b"?")
    done = transfer(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert done.returncode == 1
    assert f"document {missing}: its file is missing at the source" in done.stdout
    assert f"document {damaged}: its file is damaged at the source" in done.stdout
    assert "1 copied, 0 found there, 2 missing or damaged" in done.stdout
    assert list(Ledger(tmp_path / "new").files()) == sorted(files)[2:]
    assert not [*(tmp_path / "new/files/staging").iterdir()]


@pytest.mark.parametrize("announced", [{}, {"sha256": sha256(CONTENT)}], ids=["unknown", "announced"])
def test_what_was_sent_and_not_completed_is_completed_there(tmp_path: Path, announced: dict[str, str]) -> None:
    with on_sqlite(tmp_path / "old") as server:
        user = server.register()
        sent, unsent = (announce(user, CONTENT, **announced) for _ in range(2))
        assert put(sent, CONTENT) == 200
        assert server.stop() == 0
    assert "1 copied, 0 found there, 0 missing" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    (file,) = Ledger(tmp_path / "new").files().values()
    file.write_bytes(b"half a fi")
    assert "1 copied, 0 found there, 0 missing" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert "0 copied, 1 found there, 0 missing" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new") as server:
        user = server.log_in(user.email)
        assert complete(user, sent).json()["sha256"] == sha256(CONTENT)
        assert complete(user, unsent).json()["code"] == "upload-missing"


def test_what_is_wrong_at_the_target_is_brought_again(old: Life, tmp_path: Path) -> None:
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    first, second, _ = Ledger(tmp_path / "new").files().values()
    first.write_bytes(b"half a fi")
    second.write_bytes(second.read_bytes() + b"more")
    assert "files: 2 copied, 1 found there" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new") as server:
        old.goes_on(server)
        Ledger(tmp_path / "new").settle()
        Ledger(tmp_path / "new").check()


def test_a_target_that_fails_is_told_in_one_line_and_gone_on_with(old: Life, tmp_path: Path) -> None:
    in_the_way = tmp_path / "new/files/documents"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert line == "storage-unavailable: Storage unavailable"
    in_the_way.unlink()
    assert "files: 3 copied" in moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new") as server:
        old.goes_on(server)


def test_a_service_that_runs_is_not_moved(tmp_path: Path) -> None:
    with Server(tmp_path / "old"):
        url = databases.url(tmp_path / "old")
        line = refused(tmp_path / "new", "--from-database-url", url)
        assert line == "transfer: the source database is in use: stop every process of the service, and begin anew"
    with on_sqlite(tmp_path / "old 2") as stopped, Server(tmp_path / "new"):
        stopped.stop()
        line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old 2")
        assert line == "transfer: the target database is in use: stop every process of the service, and begin anew"


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("where", ["old", "new"])
@pytest.mark.parametrize("stopped", [True, False], ids=["and stops", "and stays"])
def test_a_server_that_starts_meanwhile_is_noticed(tmp_path: Path, where: str, *, stopped: bool) -> None:
    server = on_sqlite(tmp_path / "old") if where == "old" else Server(tmp_path / "new")
    source, target = SqliteDatabase(tmp_path / "old/app.db"), database(tmp_path / "new")
    storages = [LocalStorage(tmp_path / name / "files") for name in ("old", "new")]
    transfer = Transfer(target, source, *storages)

    def tell(line: str) -> None:
        if line.startswith("rows: every one"):
            server.start().register()
            if stopped:
                server.stop()

    async def run() -> None:
        try:
            await transfer.run(tell)
        finally:
            await transfer.close()

    told = "meanwhile" if stopped else f"the {'source' if where == 'old' else 'target'} database is in use"
    with ExitStack() as stack:
        stack.push(server)
        with pytest.raises(TransferError, match=told):
            asyncio.run(run())


def test_a_source_that_cannot_be_locked_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "old/app.db.lock").mkdir(parents=True)
    (tmp_path / "old/app.db").touch()
    line = refused(tmp_path / "new", "--from-database-url", sqlite(tmp_path / "old"))
    assert line == f"configuration: DATABASE_URL: {tmp_path}/old/app.db.lock: Is a directory"


@pytest.mark.usefixtures("old")
def test_a_target_that_is_somebody_elses_is_refused_untouched(tmp_path: Path) -> None:
    with Server(tmp_path / "new") as server:
        server.register()
        assert server.stop() == 0
    before = contents(tmp_path / "new")
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    assert line.startswith("transfer: the target holds 4 row(s) of events that the source has not")
    assert contents(tmp_path / "new") == before


def test_a_target_that_has_served_is_refused(old: Life, tmp_path: Path) -> None:
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new") as server:
        server.log_in(old.user.email).upload()
        assert server.stop() == 0
    assert "has served meanwhile" in refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")


def test_files_are_not_brought_to_those_of_another_service(old: Life, tmp_path: Path) -> None:
    with on_sqlite(tmp_path / "other") as server:
        server.register().upload()
        server.stop()
    others = {"STORAGE_URL": f"file://{tmp_path / 'other/files'}"}
    line = refused(tmp_path / "new", "--from-data-dir", tmp_path / "old", **others)
    assert line.startswith("transfer: the target storage is another service's")
    assert len(Ledger(tmp_path / "other").files()) == 1
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new") as server:
        old.goes_on(server)


def contents(data_dir: Path) -> dict[str, set[Any]]:
    ledger = Ledger(data_dir)
    return {table.name: set(map(repr, ledger.rows(select(table)))) for table in metadata.sorted_tables}


def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path) -> None:
    with on_sqlite(tmp_path / "old") as server:
        server.stop()
    same = {"DATABASE_URL": sqlite(tmp_path / "old")}
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "old")
    assert refused(tmp_path / "new").startswith("transfer: say what to copy")
    assert "DATABASE_URL names what is to be transferred" in refused(link, "--from-data-dir", tmp_path / "old", **same)
    elsewhere = {"STORAGE_URL": f"file://{link}/files"}
    assert "STORAGE_URL names what is to be" in refused(
        tmp_path / "new", "--from-data-dir", tmp_path / "old", **elsewhere
    )
    assert "there is nothing to transfer at" in refused(tmp_path / "new", "--from-data-dir", tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()
    assert "DATABASE_URL: must be" in refused(tmp_path / "new", "--from-database-url", "mysql://secret@db/name")
    with databases.past(make_url(sqlite(tmp_path / "old"))).begin() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "the source database is at revision 0000" in refused(tmp_path / "new", "--from-data-dir", tmp_path / "old")
