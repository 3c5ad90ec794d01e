"""Backups of a service that runs, and services made of them: nothing that was accepted before is missing."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, make_url, select, update
from uuid_utils.compat import uuid7

from app import migrations, wiring
from app.backup import BackupError, bucket
from app.backup.bucket import BucketTarget
from app.backup.make import Backup
from app.backup.manifest import Content, Manifest
from app.backup.postgresql import PostgresqlSource, environment
from app.backup.snapshots import Source
from app.backup.sqlite import SqliteSource
from app.backup.target import FolderTarget
from app.database import now
from app.documents.models import documents, previous_files
from app.events import events
from app.files.backups import LEASE
from app.files.models import files, key_of
from app.jobs.models import jobs
from app.processing.models import results
from app.settings.storage import Bucket, parse
from app.storage.local import LocalStorage
from app.storage.s3 import S3Storage
from app.upkeep import chores
from tests.flows import test_chaos
from tests.flows.test_chaos import Client, fork, torment
from tests.flows.test_large_results import read, word
from tests.flows.test_object_storage import ENVIRONMENT
from tests.flows.test_revision_before import Before
from tests.support import databases
from tests.support.direct_uploads import announce, complete, put, sha256
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.metrics import metric
from tests.support.seaweed import Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

assert wiring  # imports every module that defines a table

SETTINGS = {"PROCESSORS": f"simulated,text,{NAMED}", "LEASE_SECONDS": "1", "ORPHAN_GRACE_SECONDS": "1"}
SECRETS = ("jwt-secret", "audit-key", "encryption-keys")
LONG_WORK = {"params": {"seconds": 2}}
LATER = {"params": {"seconds": 0, "flaky": 1}}


def command(name: str, data_dir: Path, *options: object, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), **databases.settings(data_dir), **settings}
    return run(name, *map(str, options), **environment)


def told(name: str, data_dir: Path, *options: object, **settings: str) -> str:
    done = command(name, data_dir, *options, **settings)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refused(name: str, data_dir: Path, *options: object, **settings: str) -> str:
    """The one line that says why."""
    done = command(name, data_dir, *options, **settings)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    return line


def with_secrets(old: Path, new: Path) -> Path:
    """A new data folder that has what is in no backup."""
    new.mkdir()
    for name in SECRETS:
        if (old / name).exists():
            shutil.copy(old / name, new)
    return new


@contextmanager
def uploading(user: User) -> Iterator[dict[str, bytes]]:
    """Somebody uploads and processes all the time. Gives what was accepted so far, by the id of its document."""
    accepted: dict[str, bytes] = {}
    stopping = threading.Event()

    def go_on() -> None:
        while not stopping.is_set():
            content = pdf(str(uuid7()))
            document = user.upload(content)
            user.start(document["id"], params={"seconds": 0.1})
            accepted[document["id"]] = content

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield accepted
    finally:
        stopping.set()
        thread.join()


class Life:
    """All that a service may hold."""

    def __init__(self, server: Server) -> None:
        self.user = user = server.register("ada@example.com")
        self.data_dir = server.data_dir
        noise = "".join(f"{uuid7()} é😀 ”\\/ " for _ in range(12_000))
        self.large = read(user, word(noise))
        self.maker = user.upload()["id"]
        user.finished(user.start(self.maker, processor="maker", params={"files": 2, "documents": 1})["id"])
        self.old, self.new = pdf("old"), pdf("new")
        self.replaced = user.upload(self.new)["id"]
        self.previous = self._insert_previous()
        self.trashed = user.upload(pdf("in the trash"))["id"]
        user.finished(user.start(self.trashed)["id"])
        self.unsent, self.sent = (announce(user, pdf("announced")) for _ in range(2))
        assert put(self.sent, pdf("announced")) == 200
        with databases.engine(self.data_dir).begin() as conn:
            conn.execute(update(documents).where(documents.c.id == UUID(self.trashed)).values(deleted_at=now()))
        gone = user.upload(pdf("gone"))["id"]
        assert user.http.delete(f"/documents/{gone}").status_code == 204
        running, waiting = user.upload()["id"], user.upload()["id"]
        self.unfinished = [user.start(running, **LONG_WORK)["id"], user.start(waiting, **LATER)["id"]]
        until(lambda: user.job(self.unfinished[0])["state"] == "RUNNING")
        self.seen = self.look(user)

    def _insert_previous(self) -> UUID:
        """The file that a document had before. Returns its id."""
        file_id, content = uuid7(), {"content_type": PDF_TYPE, "size": len(self.old), "sha256": sha256(self.old)}
        path = self.data_dir / "files/documents" / str(file_id)[-2:] / str(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.old)
        with databases.engine(self.data_dir).begin() as conn:
            owner = conn.scalar(select(documents.c.owner_id).where(documents.c.id == UUID(self.replaced)))
            conn.execute(insert(files).values(id=file_id, key=key_of(file_id), created_at=now(), **content))
            row = {"document_id": UUID(self.replaced), "owner_id": owner, "file_id": file_id, **content}
            times = {"stored_at": now(), "replaced_at": now()}
            conn.execute(insert(previous_files).values(filename="old.pdf", number=1, keep=False, **row, **times))
        return file_id

    def look(self, user: User) -> list[bytes]:
        made = user.http.get("/documents", params={"parent_id": self.maker}).json()["items"]
        paths = [
            *(f"/documents/{each}" for each in (self.large, self.maker, self.replaced)),
            *(f"/documents/{each}/content" for each in (self.large, self.maker, self.replaced, made[0]["id"])),
            *(f"/documents/{each}/timeline" for each in (self.large, self.maker)),
            f"/documents/{self.large}/result",
            f"/documents/{self.maker}/results/maker/files",
            *(f"/documents/{self.maker}/results/maker/files/{number}.bin" for number in range(2)),
        ]
        answers = [user.http.get(path) for path in paths]
        assert {answer.status_code for answer in answers} == {200}, answers
        return [answer.content for answer in answers]

    def goes_on(self, server: Server) -> None:
        """In a service that was restored: all is there, and each job ends exactly once."""
        user, ledger = server.log_in(self.user.email), Ledger(server.data_dir)
        assert self.look(user) == self.seen
        assert ledger.files()[self.previous].read_bytes() == self.old
        for job_id in self.unfinished:
            assert user.finished(job_id)["state"] == "SUCCEEDED"
        # What was not completed is not in the backup: it can be sent again.
        for upload in (self.unsent, self.sent):
            assert complete(user, upload).json()["code"] == "upload-missing"
            again = upload | {"upload_url": f"{server.url}/{upload['upload_url'].split('/', 3)[3]}"}
            assert put(again, pdf("announced")) == 200
            assert complete(user, upload).status_code == 200
        user.finished(user.start(user.upload()["id"])["id"])
        with databases.engine(server.data_dir).begin() as conn:
            assert conn.scalar(select(documents.c.deleted_at).where(documents.c.id == UUID(self.trashed)))
            conn.execute(delete(previous_files))  # the ledger does not know those
        ledger.settle()
        ledger.check()
        ledger.check_trail()
        published = Counter(row.job_id for row in ledger.rows(select(results)))
        succeeded = {row.id for row in ledger.rows(select(jobs).where(jobs.c.state == "SUCCEEDED"))}
        assert published == Counter(succeeded)


def test_a_service_is_backed_up_as_it_runs_and_lives_on_elsewhere(tmp_path: Path) -> None:
    old, target = tmp_path / "old", tmp_path / "target"
    with Server(old, SETTINGS) as server:
        life = Life(server)
        other = server.register()
        with uploading(other) as accepted:
            until(lambda: len(accepted) > 3)
            before = dict(accepted)
            said = told("backup", old, target)
            until(lambda: len(accepted) > len(before) + 2)
        server.kill()
    assert " 0 missing or damaged" in said
    assert f"keep it elsewhere: {old}/jwt-secret, {old}/encryption-keys, {old}/audit-key" in said
    assert "0 objects are missing or damaged" in told("backup", old, target, "--verify")
    new = with_secrets(old, tmp_path / "new")
    shutil.rmtree(old)
    said = told("restore", new, target)
    assert said.startswith(
        f"Found, of what is in no backup: {new}/jwt-secret, {new}/encryption-keys, {new}/audit-key\n"
    )
    assert " 0 missing or damaged" in said
    with Server(new, SETTINGS) as server:
        life.goes_on(server)
        user = server.log_in(other.email)
        for document_id, content in before.items():
            assert user.http.get(f"/documents/{document_id}/content").content == content
    assert refused("restore", new, target) == "restore: the database of DATABASE_URL is not empty: name an empty one"


def simple(server: Server, count: int = 4) -> dict[str, bytes]:
    """Documents of a new user, all different."""
    user = server.register("ada@example.com")
    contents = [pdf(f"{number} of {count}") for number in range(count)]
    return {user.upload(content)["id"]: content for content in contents}


def there(server: Server) -> dict[str, bytes]:
    """The documents of that user, in a service that was restored."""
    user = server.log_in("ada@example.com")
    ids = [each["id"] for each in user.http.get("/documents").json()["items"]]
    return {each: user.http.get(f"/documents/{each}/content").content for each in ids}


def test_what_the_target_has_is_not_copied_again_and_what_is_old_goes(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var, {"TRASH_SECONDS": "0"}) as server:
        kept = simple(server)
        user = server.log_in("ada@example.com")
        same = next(iter(kept.values()))
        for _ in range(3):
            kept[user.upload(same)["id"]] = same
        said = told("backup", var, target)
        assert "files: 4 copied, 0 held before, 3 the same as another, 0 missing or damaged" in said
        kept[user.upload(pdf("a fifth one"))["id"]] = pdf("a fifth one")
        said = told("backup", var, target)
        assert "files: 1 copied, 7 held before, 0 the same as another, 0 missing or damaged" in said
        assert len([*target.glob("files/??/*")]) == 5
        gone = next(each for each in kept if kept[each] != same)
        assert user.http.delete(f"/documents/{gone}").status_code == 204
        del kept[gone]
        said = told("backup", var, target, "--keep", 1)
    assert "files: 0 copied, 7 held before" in said
    assert "kept: 1 backups; 2 removed, and 1 files that only they had" in said
    assert len([*target.glob("files/??/*")]) == 4
    assert "verified: 1 backups, 4 files, 0 objects" in told("backup", var, target, "--verify")
    new = tmp_path / "new"
    told("restore", new, target)
    with Server(new) as server:
        assert there(server) == kept


def manifest_in(target: Path) -> Path:
    (path,) = target.glob("backups/*/manifest.json")
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_named(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server)
        told("backup", var, target)
    damaged, missing = sorted(target.glob("files/??/*"))[:2]
    names = {sha256(content): f"documents/{document_id}" for document_id, content in kept.items()}
    flip(damaged)
    missing.rename(tmp_path / "away")
    expected = {
        f"files/{damaged.name}, which is {names[damaged.name]}, is damaged",
        f"files/{missing.name}, which is {names[missing.name]}, is missing",
    }
    for name, option in (("backup", "--verify"), ("restore", "--check")):
        done = command(name, var, target, option)
        assert done.returncode == 1
        assert expected < set(done.stdout.splitlines())
        assert "verified: 1 backups, 2 files, 2 objects are missing or damaged" in done.stdout
    done = command("restore", tmp_path / "new", target)
    assert done.returncode == 1
    assert expected < set(done.stdout.splitlines())
    assert "files: 2 copied, 0 found there, 2 missing or damaged" in done.stdout
    with Server(tmp_path / "new") as server:
        user = server.log_in("ada@example.com")
        assert len(user.http.get("/documents").json()["items"]) == 4
    for number, path in enumerate(sorted(manifest_in(target).parent.iterdir())):
        flip(path)
        line = refused("restore", tmp_path / f"new-{number}", target)
        assert f"{path.relative_to(target)} is damaged" in line
        assert not [*(tmp_path / f"new-{number}").glob("files/documents/*")]
        flip(path)


@pytest.mark.long
def test_what_is_missing_at_the_source_does_not_keep_the_rest_back(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server)
        missing, damaged = sorted(Ledger(var).files().items())[:2]
        missing[1].rename(var / "files" / "documents" / str(missing[0]))  # where nobody looks for it
        flip(damaged[1])
        done = command("backup", var, target)
        assert done.returncode == 1
        assert f"documents/{missing[0]} is missing in the storage" in done.stdout
        assert f"documents/{damaged[0]} is damaged in the storage" in done.stdout
    lacking = "2 files were missing or damaged when the backup was made"
    for name, option in (("backup", "--verify"), ("restore", "--check")):
        done = command(name, var, target, option)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"backup {manifest_in(target).parent.name}: {lacking}" in done.stdout
        assert "0 objects are missing or damaged" in done.stdout
    done = command("restore", tmp_path / "new", target)
    assert (done.returncode, done.stderr) == (1, "")
    assert lacking in done.stdout
    with Server(tmp_path / "new") as server:
        user = server.log_in("ada@example.com")
        for document_id in kept.keys() - {str(missing[0]), str(damaged[0])}:
            assert user.http.get(f"/documents/{document_id}/content").content == kept[document_id]


def test_what_is_lost_since_is_named_though_the_target_has_it(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server)
        told("backup", var, target)
        (missing, lost), (shorter, cut) = sorted(Ledger(var).files().items())[:2]
        lost.unlink()
        cut.write_bytes(cut.read_bytes()[:-1])
        for _ in range(2):
            done = command("backup", var, target)
            assert (done.returncode, done.stderr) == (1, "")
            assert f"documents/{missing} is missing in the storage\n" in done.stdout
            assert f"documents/{shorter} is damaged in the storage\n" in done.stdout
            assert (
                "2 held before, 0 the same as another, 2 missing or damaged, 0 of which are not in the" in done.stdout
            )
    assert "0 objects are missing" in told("backup", var, target, "--verify")
    told("restore", tmp_path / "new", target)
    with Server(tmp_path / "new") as server:
        assert there(server) == kept


def test_the_secrets_that_a_restore_lacks_are_named(tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    with Server(var) as server:
        simple(server, 1)
        told("backup", var, target)
    new.mkdir()
    shutil.copy(var / "audit-key", new)
    found, missing, *_ = told("restore", new, target, JWT_SECRET="x" * 40).splitlines()
    assert found == f"Found, of what is in no backup: JWT_SECRET, {new}/audit-key"
    assert missing == f"Missing: ENCRYPTION_KEYS or {new}/encryption-keys: bring what the old service had"
    only = told("restore", tmp_path / "newer", target).splitlines()[0]
    assert only.startswith("Missing: JWT_SECRET or ")


def test_single_files_are_brought_back_while_the_service_runs(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server)
        told("backup", var, target)
        (missing, lost), (damaged, rotten), (whole, _), (never, gone) = sorted(Ledger(var).files().items())
        lost.unlink()
        with suppress(OSError):  # another is in the same folder
            lost.parent.rmdir()
        flip(rotten)
        keys = [f"documents/{each}" for each in (missing, damaged, whole)]
        said = told("restore", var, target, *(option for key in keys for option in ("--file", key)))
        assert said.splitlines() == [
            f"{keys[0]} was missing, and is restored",
            f"{keys[1]} was damaged, and is restored",
            f"{keys[2]} is there, and as it was stored: it is left alone",
        ]
        assert there(server) == kept
        gone.unlink()
        (copy,) = target.glob(f"files/??/{sha256(kept[str(never)])}")
        flip(copy)
        for state in ("damaged", "missing"):
            line = refused("restore", var, target, "--file", f"documents/{never}")
            assert line == f"restore: files/{copy.name}, which is documents/{never}, is {state}"
            copy.unlink(missing_ok=True)
        assert not gone.exists()
        assert not [*var.glob("files/staging/*")]
        line = refused("restore", var, target, "--file", f"documents/{uuid7()}")
        assert "the database has no stored file documents/" in line
        assert "there is no service" in refused("restore", tmp_path / "new", target, "--file", keys[0])
        for options in (("--check",), ("--backup", "x")):
            line = refused("restore", var, target, "--file", keys[0], *options)
            assert line == "restore: --file takes neither --backup nor --check"
    shutil.move(var / "files", tmp_path / "unmounted")
    (var / "files").mkdir()
    line = refused("restore", var, target, "--file", keys[0])
    assert line == "configuration: STORAGE_URL: there is no mark of this service, so the files must be elsewhere"
    with Server(tmp_path / "other") as server:
        simple(server, 1)
    shutil.rmtree(var / "files")
    shutil.copytree(tmp_path / "other/files", var / "files")
    assert "the files there belong to another database" in refused("restore", var, target, "--file", keys[0])


def test_a_single_file_is_brought_back_into_a_bucket(tmp_path: Path, prefix: Prefix) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    settings = {"STORAGE_URL": prefix.url(), **ENVIRONMENT}
    with Server(var, settings) as server:
        kept = simple(server, 2)
        told("backup", var, target, **settings)
        (damaged, missing) = (f"documents/{document_id}" for document_id in kept)
        prefix.put(damaged, b"something else")
        prefix.delete(missing)
        done = command("backup", var, target, **settings)
        assert (done.returncode, done.stderr) == (1, "")
        for line in (f"{damaged} is damaged in the storage", f"{missing} is missing in the storage"):
            assert line in done.stdout.splitlines()
        for key in (damaged, missing):
            assert "and is restored" in told("restore", var, target, "--file", key, **settings)
        assert there(server) == kept


def killed(name: str, data_dir: Path, target: object, fault: str, **settings: str) -> bool:
    return command(name, data_dir, target, FAULT=fault, **settings).returncode == -signal.SIGKILL


def test_killed_anywhere_and_started_again(tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    with Server(var) as server:
        kept = simple(server)
        assert killed("backup", var, target, "backup.after_database:1")
        assert killed("backup", var, target, "backup.after_file:2")
        assert refused("restore", new, target) == "restore: there is no complete backup in the target"
        copied = len([*target.glob("files/??/*")])
        assert copied >= 2
        said = told("backup", var, target)
    assert f"files: {4 - copied} copied, {copied} held before" in said
    assert len([*target.glob("backups/*")]) == 1
    assert not [*target.glob("staging/*")]
    assert killed("restore", new, target, "restore.after_file:2")
    done = command("serve", new, "--port", 0)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "STORAGE_URL, or DATABASE_URL: the mark there is not this service's" in done.stderr
    _drop_tables(new)
    assert killed("restore", new, target, "restore.after_database:1")
    said = told("restore", new, target)
    assert "files: 0 copied, 4 found there, 0 missing or damaged" in said
    with Server(new) as server:
        assert there(server) == kept


def _drop_tables(data_dir: Path) -> None:
    """Undo that a server was started too early."""
    if not databases.POSTGRESQL:
        for path in data_dir.glob("app.db*"):
            path.unlink()
        return
    with databases.engine(data_dir).begin() as conn:
        conn.exec_driver_sql("DROP SCHEMA public CASCADE")
        conn.exec_driver_sql("CREATE SCHEMA public")


def source_of(data_dir: Path) -> Source:
    if databases.POSTGRESQL:
        return PostgresqlSource(make_url(databases.url(data_dir)))
    return SqliteSource(data_dir / "app.db", data_dir / "backup")


def backing_up(data_dir: Path, target: Path) -> Backup:
    """In this process."""
    return Backup(
        db=databases.database(data_dir),
        source=source_of(data_dir),
        storage=LocalStorage(data_dir / "files"),
        target=FolderTarget(target, LocalStorage(target)),
        secrets=[],
    )


def test_what_is_deleted_meanwhile_is_in_the_backup_and_goes_afterwards(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var, {"ORPHAN_GRACE_SECONDS": "1", "TRASH_SECONDS": "0"}) as server:
        kept = simple(server)
        user, ledger = server.log_in("ada@example.com"), Ledger(var)
        sweeps: list[int] = []

        def report(line: str) -> None:
            if not line.startswith("database: "):
                return
            for document_id in kept:
                assert user.http.delete(f"/documents/{document_id}").status_code == 204
            until(lambda: server.logs("upkeep.postponed"))
            sweeps.append(len(ledger.files()))

        made, complete = asyncio.run(backing_up(var, target).run(report))
        assert sweeps == [4]
        assert (made.files, made.missing, complete) == (4, 0, True)
        until(lambda: not ledger.files())
        assert not server.logs("upkeep.skipped")
    told("restore", tmp_path / "new", target)
    with Server(tmp_path / "new") as server:
        assert there(server) == kept


@pytest.mark.long
def test_a_backup_that_was_killed_holds_nobody_up_for_long(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var, {"ORPHAN_GRACE_SECONDS": "1", "TRASH_SECONDS": "0"}) as server:
        kept = simple(server)
        assert killed("backup", var, target, "backup.after_database:1")
        done = command("sweep", var)
        assert (done.returncode, done.stderr.splitlines()[-1].split(":")[0]) == (1, "skipped")
        assert "a backup is being made, and no file is removed meanwhile" in done.stderr
        done = command("users", var, "erase", "ada@example.com", "--yes")
        assert done.stderr.splitlines()[-1] == "skipped: a backup is being made, and no file is removed meanwhile"
        user, ledger = server.log_in("ada@example.com"), Ledger(var)
        for document_id in kept:
            assert user.http.delete(f"/documents/{document_id}").status_code == 204
        with databases.engine(var).begin() as conn:
            later = update(chores).where(chores.c.name.startswith("backup:"), chores.c.until <= now(LEASE))
            assert conn.execute(later.values(until=now(-1))).rowcount == 1
        until(lambda: not ledger.files())
        told("backup", var, target)
        assert not ledger.rows(select(chores).where(chores.c.name.startswith("backup:")))


def test_a_gauge_says_when_the_last_backup_was_made(tmp_path: Path) -> None:
    var, target, name = tmp_path / "var", tmp_path / "target", "last_backup_timestamp_seconds"
    with Server(var) as server:
        simple(server, 1)
        assert metric(server, name) == 0
        assert killed("backup", var, target, "backup.after_file:1")
        assert metric(server, name) == 0
        before = time.time()
        told("backup", var, target)
        until(lambda: before - 1 < metric(server, name) < time.time() + 1)


def test_one_backup_at_a_time(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var):
        pass

    async def scenario() -> None:
        async with FolderTarget(target, LocalStorage(target)).alone():
            assert refused("backup", var, target) == "backup: another backup to this target is running"

    asyncio.run(scenario())
    told("backup", var, target)


def resealed(path: Path, **changes: Any) -> None:
    changed = Manifest.model_validate_json(path.read_bytes()).model_copy(update=changes)
    path.write_text(changed.seal().model_dump_json())


def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    assert refused("restore", new, target) == f"configuration: TARGET: there is no folder {target}"
    (tmp_path / "empty/files").mkdir(parents=True)
    (tmp_path / "empty/app.db").touch()
    assert "DATABASE_URL: there is no service at " in refused("backup", tmp_path / "empty", target)
    with Server(var) as server:
        simple(server, 1)
        told("backup", var, target)
    assert refused("backup", var, "ftp://x/y").startswith("configuration: TARGET: must be file:///path or s3://")
    assert refused("restore", new, target, "--backup", "x") == "restore: there is no complete backup x"
    other = {"STORAGE_URL": f"file://{var}/files"}
    assert "the storage of STORAGE_URL is not empty" in refused("restore", new, target, **other)
    path = manifest_in(target)
    kind, another = ("postgresql", "sqlite") if databases.POSTGRESQL else ("sqlite", "postgresql")
    resealed(path, kind=another)
    line = refused("restore", new, target)
    assert line == (
        f"restore: the backup is of {another} and DATABASE_URL names {kind}: restore it on {another}, "
        "then move that with: python -m app transfer"
    )
    resealed(path, kind=kind, revision="9999")
    assert f"is at revision 9999 and this version knows {migrations.HEAD}" in refused("restore", new, target)
    resealed(path, format=2)
    assert "was made by a newer version" in refused("restore", new, target)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"documents": 7}))
    assert "manifest.json is damaged" in refused("restore", new, target)
    assert not [*new.glob("files/documents/*")]


@pytest.mark.parametrize("name", ["lock", "staging"])
def test_no_link_leads_a_backup_out_of_its_target(name: str, tmp_path: Path) -> None:
    var, target, away = tmp_path / "var", tmp_path / "target", tmp_path / "away"
    for folder in (target, away):
        folder.mkdir()
    precious = away / "precious"
    precious.write_text("precious")
    (target / name).symlink_to(precious if name == "lock" else away)
    with Server(var) as server:
        simple(server, 1)
        assert refused("backup", var, target) == f"backup: {target / name} is a link: remove it"
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("key", ["../../evil/aa/it", "documents/../../it", "/it", "documents/it", ""])
def test_a_backup_names_no_files_but_those_of_the_service(key: str, tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    with Server(var) as server:
        simple(server, 1)
        told("backup", var, target)
    path = manifest_in(target)
    listing = path.with_name("files.ndjson")
    (line,) = listing.read_text().splitlines()
    listing.write_text(f"{json.dumps([key, *json.loads(line)[1:]])}\n")
    content = listing.read_bytes()
    resealed(path, listing=Content(size=len(content), sha256=sha256(content)))
    before = {each for each in tmp_path.rglob("*") if new not in each.parents}
    assert "files.ndjson is damaged" in refused("restore", new, target)
    assert {each for each in tmp_path.rglob("*") if new not in each.parents} == before | {new}


APART = "configuration: TARGET must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL"


def test_a_target_is_apart_from_what_is_backed_up(tmp_path: Path) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server, 1)
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path, tmp_path / "link", var, var / "files", var / "backups", tmp_path / "link/var/files/x"):
        for name in ("backup", "restore"):
            assert refused(name, var, place) == APART
    elsewhere = {"STORAGE_URL": f"file://{tmp_path}/storage/files"}
    shutil.copytree(var / "files", tmp_path / "storage/files")
    assert refused("backup", var, tmp_path / "storage", **elsewhere) == APART
    told("backup", var, target, **elsewhere)
    told("restore", tmp_path / "new", target)
    with Server(tmp_path / "new") as server:
        assert there(server) == kept


@pytest.mark.parametrize(
    ("storage", "target"),
    [
        ("s3://bucket/p/files", "s3://bucket/p"),
        ("s3://bucket/p/files", "s3://bucket"),
        ("s3://bucket/p", "s3://bucket/p/backups"),
        ("s3://bucket", "s3://bucket/backups?region=eu-west-1"),
        ("s3://bucket/p?endpoint=http://127.0.0.1:9", "s3://bucket/p/?endpoint=http://localhost:9"),
    ],
)
def test_a_target_is_apart_in_a_bucket(storage: str, target: str, tmp_path: Path) -> None:
    settings = {"STORAGE_URL": storage, **ENVIRONMENT}
    with Server(tmp_path / "var"):
        pass
    assert refused("backup", tmp_path / "var", target, "--keep", 1, **settings) == APART


def test_only_what_a_backup_has_made_is_removed(tmp_path: Path, prefix: Prefix) -> None:
    var, target = tmp_path / "var", tmp_path / "target"
    with Server(var) as server:
        kept = simple(server, 2)
    others = ["files/documents/note", "files/note", f"files/{'A' * 64}", f"files/x/{'a' * 64}", "backups/mine/note"]
    for key in others:
        prefix.put(key, b"of somebody else")
    folder = [target / "files/te/note.te", target / "files/te" / ("a" * 64), target / "backups/mine/database.dump"]
    for path in folder:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of somebody else")
    for place, settings in ((target, {}), (prefix.url(), ENVIRONMENT)):
        told("backup", var, place, **settings)
        assert "kept: 1 backups; 1 removed, and 0 files" in told("backup", var, place, "--keep", 1, **settings)
    assert set(others) < prefix.objects().keys()
    assert all(path.exists() for path in folder)
    told("restore", tmp_path / "new", target)
    with Server(tmp_path / "new") as server:
        assert there(server) == kept


def test_a_target_is_of_one_service(tmp_path: Path) -> None:
    var, target, new, other = (tmp_path / name for name in ("var", "target", "new", "other"))
    with Server(var) as server:
        simple(server)
        told("backup", var, target)
        first = manifest_in(target).parent.name
        server.log_in("ada@example.com").upload(pdf("later"))
        told("backup", var, target)
    before = {path: path.stat().st_size for path in target.rglob("*") if path.is_file()}
    with Server(other) as server:
        simple(server)
        line = refused("backup", other, target, "--keep", 1)
        assert line == "backup: the backups in the target are of another database: name another target"
    assert {path: path.stat().st_size for path in target.rglob("*") if path.is_file()} == before
    told("restore", new, target, "--backup", first)
    with Server(new) as server:
        assert "kept: 1 backups; 2 removed" in told("backup", new, target, "--keep", 1)
        known = str(Manifest.model_validate_json(manifest_in(target).read_bytes()).event)
        server.log_in("ada@example.com").upload(pdf("later still"))
        until(lambda: known not in {path.name for path in (new / "files/mark").iterdir()})
    with databases.engine(new).begin() as conn:  # as EVENTS_TTL does
        assert conn.execute(delete(events).where(events.c.id == UUID(known.split()[1]))).rowcount == 1
    assert "kept: 1 backups; 1 removed" in told("backup", new, target, "--keep", 1)


def test_where_there_is_no_service_none_is_made(tmp_path: Path) -> None:
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    line = refused("backup", empty, target)
    if databases.POSTGRESQL:
        assert line.startswith("configuration: DATABASE_URL: there is no service at postgresql")
        assert "secret" not in line
    else:
        assert line == f"configuration: DATABASE_URL: there is no service at {empty / 'app.db'}"
    assert not [*empty.iterdir(), *tmp_path.glob("target")]
    assert command("migrate", empty).returncode == 0
    line = refused("backup", empty, target)
    assert line == "configuration: DATABASE_URL: there is nothing to back up: nothing ever happened there"
    assert not [*tmp_path.glob("target/backups/*/*")]


@pytest.mark.sqlite
def test_the_log_of_a_database_that_is_gone_is_not_applied_to_another(tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    with Server(var) as server:
        kept = simple(server, 1)
        told("backup", var, target)
    new.mkdir()
    (new / "app.db-wal").write_bytes(b"of another")
    assert "app.db-wal belongs to a database that is gone: remove it first" in refused("restore", new, target)
    (new / "app.db-wal").unlink()
    told("restore", new, target)
    with Server(new) as server:
        assert there(server) == kept


@pytest.mark.postgresql
def test_the_tools_of_postgresql_are_needed(tmp_path: Path) -> None:
    var, target, programs = tmp_path / "var", tmp_path / "target", tmp_path / "bin"
    with Server(var) as server:
        simple(server, 1)
        programs.mkdir()
        line = refused("backup", var, target, PATH=str(programs))
        assert line == "configuration: pg_dump is not in PATH: install the client programs of PostgreSQL"
        tool = programs / "pg_dump"
        tool.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6'\n")
        tool.chmod(0o700)
        line = refused("backup", var, target, PATH=f"{programs}:{os.environ['PATH']}")
        assert line.startswith("configuration: pg_dump is of version 9 and the server of ")
        tool.write_text("#!/bin/sh\n[ $1 = --version ] && echo 99 && exit\necho 'it broke' >&2; exit 1\n")
        line = refused("backup", var, target, PATH=f"{programs}:{os.environ['PATH']}")
        assert line == "backup: pg_dump failed: it broke"
        assert not [*target.glob("backups/*/manifest.json")]


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        (
            "postgresql+asyncpg://api@db.internal/docs",
            {"PGHOST": "db.internal", "PGPORT": "5432", "PGDATABASE": "docs"},
        ),
        ("postgresql+asyncpg://a:p%40ss@[::1]:6432/docs?ssl=require", {"PGHOST": "::1", "PGPORT": "6432"}),
        ("postgresql+asyncpg://a:p%40ss@db/docs?ssl=require", {"PGPASSWORD": "p@ss", "PGSSLMODE": "require"}),
        ("postgresql+asyncpg:///docs?host=/run/postgresql", {"PGHOST": "/run/postgresql", "PGPORT": "5432"}),
        (
            "postgresql+asyncpg://api@/docs?host=a:5433&host=b",
            {"PGHOST": "a,b", "PGPORT": "5433,5432", "PGTARGETSESSIONATTRS": "read-write"},
        ),
    ],
)
def test_the_tools_get_the_url_in_their_environment(url: str, variables: dict[str, str]) -> None:
    assert variables.items() <= environment(make_url(url)).items()


@pytest.mark.long
def test_an_older_schema_is_migrated(tmp_path: Path) -> None:
    var, target, new = tmp_path / "var", tmp_path / "target", tmp_path / "new"
    before = Before(var, "0022")
    before.migrate()
    before.delete(before.upload(before.register("ada@example.com")))
    assert "at revision 0022" in told("backup", var, target)
    told("restore", new, target)
    with databases.engine(new).connect() as conn:
        assert migrations.revision(conn) == migrations.HEAD
    Before(tmp_path / "old", "0006").migrate()
    (tmp_path / "old/files").mkdir()
    line = refused("backup", tmp_path / "old", target)
    assert line == "configuration: DATABASE_URL: the database is at revision 0006: migrate it first"


def test_by_way_of_a_bucket(tmp_path: Path, prefix: Prefix) -> None:
    var, new, target = tmp_path / "var", tmp_path / "new", prefix.url()
    head, tail = pdf("large").split(b"\n", 1)
    content = b"%b\n%%%b\n%b" % (head, os.urandom(3_000_000).hex().encode(), tail)  # sent in parts
    with Server(var) as server:
        kept = simple(server)
        kept[server.log_in("ada@example.com").upload(content)["id"]] = content
        assert killed("backup", var, target, "backup.after_file:3", **ENVIRONMENT)
        line = refused("backup", var, target, **ENVIRONMENT)
        assert line == "backup: another backup to this target is running", "for a minute, it may be"
        _release(prefix)
        prefix.begin("files/0")
        for foreign in ("backups/", "backups/README", "backups/a/b/c", "files/"):  # as consoles make folders
            prefix.put(foreign, b"")
        told("backup", var, target, **ENVIRONMENT)
        assert not prefix.uploads()
        assert "files: 0 copied, 5 held before" in told("backup", var, target, "--keep", 1, **ENVIRONMENT)
    assert Counter(key.split("/")[0] for key in prefix.objects()) == {"files": 5 + 1, "backups": 3 + 3}
    assert "0 objects are missing or damaged" in told("backup", var, target, "--verify", **ENVIRONMENT)
    assert killed("restore", new, target, "restore.after_file:2", **ENVIRONMENT)
    told("restore", new, target, **ENVIRONMENT)
    with Server(new) as server:
        assert there(server) == kept
    (damaged, _) = next((key, size) for key, size in prefix.objects().items() if key.startswith("files/") and size)
    prefix.put(damaged, b"something else")
    assert f"{damaged}, which is documents/" in command("restore", new, target, "--check", **ENVIRONMENT).stdout


def _release(prefix: Prefix) -> None:
    """As if the lease of what was killed had ended."""
    for key in prefix.objects():
        if key.startswith("lock/"):
            prefix.delete(key)


@pytest.mark.long
def test_the_lock_of_a_dead_process_in_a_bucket_ends(
    tmp_path: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "LEASE", 2.0)
    place = parse(prefix.url())
    assert isinstance(place, Bucket)

    async def scenario() -> None:
        target = BucketTarget(place, S3Storage(place, copies=tmp_path, longest=60))
        await target.open()
        async with target.alone() as confirm:
            with pytest.raises(BackupError, match="another backup to this target is running"):
                async with target.alone():
                    pass
            await asyncio.sleep(3)  # it is renewed meanwhile
            with pytest.raises(BackupError, match="another backup"):
                async with target.alone():
                    pass
            confirm()
        prefix.put("lock/of-a-dead-process", b"")
        refusals = 0
        while "lock/of-a-dead-process" in prefix.objects():
            try:
                async with target.alone():
                    pass
            except BackupError:
                refusals += 1
                await asyncio.sleep(0.1)
        assert refusals
        await target.close()

    asyncio.run(scenario())
    assert not prefix.objects()


def test_a_service_on_a_bucket(tmp_path: Path, prefix: Prefix) -> None:
    var, new, target = tmp_path / "var", tmp_path / "new", tmp_path / "target"
    old, restored = ({"STORAGE_URL": Prefix(prefix.seaweed).url(), **ENVIRONMENT} for _ in range(2))
    with Server(var, old) as server:
        kept = simple(server)
        told("backup", var, target, **old)
    told("restore", new, target, **restored)
    with Server(new, restored) as server:
        assert there(server) == kept


@pytest.mark.long
def test_a_backup_during_chaos_lives_on_elsewhere(tmp_path: Path) -> None:
    """Servers are killed, frozen and stopped while work is sent in, backed up again and again. Each backup has all that
    was accepted before it began, and each of its jobs ends exactly once."""
    var, target, chance = tmp_path / "var", tmp_path / "target", random.Random(0)  # noqa: S311 - to be repeated
    known: dict[str, set[str]] = {}
    with ExitStack() as stack, ThreadPoolExecutor(9) as threads:
        servers = [stack.enter_context(Server(var, test_chaos.SETTINGS)) for _ in range(3)]
        clients = [Client(servers[0].register(), servers, fork(chance)) for _ in range(6)]
        sending = [threads.submit(client.send, 20) for client in clients]

        def all_sent() -> bool:
            return all(each.done() for each in sending)

        tormented = [threads.submit(torment, server, fork(chance), all_sent) for server in servers]
        while not all_sent():
            before = set().union(*(client.job_ids for client in clients))
            assert " 0 missing or damaged" in told("backup", var, target)
            known[max(path.name for path in target.glob("backups/*"))] = before
        for each in [*sending, *tormented]:
            each.result(180)
    assert len(known) > 2
    assert " 0 objects are missing or damaged" in told("backup", var, target, "--verify")
    for number, (backup_id, accepted) in enumerate([*known.items()][:: max(1, len(known) // 4)]):
        new = with_secrets(var, tmp_path / f"new-{number}")
        told("restore", new, target, "--backup", backup_id)
        ledger = Ledger(new)
        with Server(new, test_chaos.SETTINGS):
            ledger.settle(60)
        ledger.check()
        ledger.check_trail()
        run = {str(row.id): row.state for row in ledger.rows(select(jobs))}
        assert accepted <= run.keys()
        assert set(run.values()) <= {"SUCCEEDED"}
        assert Counter(str(row.job_id) for row in ledger.rows(select(results))) == Counter([*run])
