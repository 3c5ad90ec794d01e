"""`python -m app check`: what is lost, damaged or contradicts itself is named, and nothing else, on either storage."""

import asyncio
import json
import os
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from unittest.mock import AsyncMock, Mock
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, insert, inspect, select, update
from uuid_utils.compat import uuid7

from app.auth.models import users
from app.check import findings as findings_module, scrubber as scrubber_module
from app.check.content import Rate, Reader
from app.check.references import References
from app.check.scrubber import ROUND, Scrubber, scrubs
from app.check.service import Check
from app.database import now
from app.documents.models import documents, previous_files
from app.errors import StorageUnavailable
from app.events import events
from app.files.models import files, key_of
from app.jobs.models import jobs
from app.processing.models import previous_result_files, previous_results, results
from app.quotas import usage
from app.settings import load
from app.storage.base import Listed, Storage
from app.storage.local import LocalStorage
from tests.benchmarks.check import Bucket, fill
from tests.flows.test_object_storage import ENVIRONMENT
from tests.support import databases
from tests.support.direct_uploads import announce, complete, put, sha256
from tests.support.factories import PDF_TYPE, pdf
from tests.support.maker import NAMED
from tests.support.metrics import metric
from tests.support.seaweed import BUCKET, Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

DAY = 86400
GRACE = {"ORPHAN_GRACE_SECONDS": "5"}
QUICK = {"params": {"seconds": 0}}


class Objects(Protocol):
    """The files of a storage, past the service."""

    def read(self, key: str) -> bytes: ...

    def write(self, key: str, content: bytes) -> None: ...

    def delete(self, key: str) -> None: ...


@dataclass
class OnDisk:
    root: Path

    def _path(self, key: str) -> Path:
        return self.root / "documents" / key[-2:] / key.rpartition("/")[2]

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        self._path(key).write_bytes(content)
        os.utime(self._path(key), (0, 0))

    def delete(self, key: str) -> None:
        self._path(key).unlink()


@dataclass
class InBucket:
    prefix: Prefix

    def read(self, key: str) -> bytes:
        found = self.prefix.seaweed.client.get_object(Bucket=BUCKET, Key=f"{self.prefix.name}/{key}")
        content: bytes = found["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        self.prefix.put(key, content)

    def delete(self, key: str) -> None:
        self.prefix.seaweed.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix.name}/{key}")


@dataclass
class World:
    """A server, its database, and its files."""

    server: Server
    objects: Objects
    user: User

    def sql(self, *statements: Any) -> None:
        with databases.engine(self.server.data_dir).begin() as conn:
            for statement in statements:
                conn.execute(statement)

    def value(self, query: Any) -> Any:
        with databases.engine(self.server.data_dir).connect() as conn:
            return conn.scalar(query)

    def check(self, *options: str, code: int | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The findings, and the summary."""
        done = run("check", "--json", *options, **self.server.environment)
        assert done.stdout, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        summary = lines.pop()["summary"]
        assert summary["findings"] == len([line for line in lines if "repaired" not in line])
        assert done.returncode == (bool(summary["findings"]) if code is None else code), done.stderr
        return lines, summary

    def codes(self, *options: str) -> list[tuple[str, str | None]]:
        """What is found, and about which document."""
        return sorted((line["code"], line["document_id"]) for line in self.check(*options)[0])

    def key(self, document_id: str) -> str:
        of = select(files.c.key).join(documents, documents.c.file_id == files.c.id)
        return str(self.value(of.where(documents.c.id == UUID(document_id))))

    def processed(self, **wanted: Any) -> str:
        document_id: str = self.user.upload()["id"]
        self.user.finished(self.user.start(document_id, **(wanted or QUICK))["id"])
        return document_id


@contextmanager
def world(server: Server, objects: Objects) -> Iterator[World]:
    with server:
        yield World(server, objects, server.register())


@pytest.fixture(params=["disk", "bucket"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A service that has seen a bit of everything, on a disk or a bucket."""
    settings = {**GRACE, "PROCESSORS": f"simulated,text,{NAMED}"}
    objects: Objects = OnDisk(tmp_path / "var" / "files")
    if request.param == "bucket":
        prefix = request.getfixturevalue("prefix")
        settings |= {"STORAGE_URL": prefix.url(), **ENVIRONMENT}
        objects = InBucket(prefix)
    with world(Server(tmp_path / "var", settings), objects) as made:
        yield made


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[World]:
    """A service that never sweeps while it is looked at."""
    with world(Server(tmp_path / "var"), OnDisk(tmp_path / "var" / "files")) as made:
        yield made


def new_file(world: World, content: bytes, **more: Any) -> UUID:
    """A stored file that has a row, and that nothing refers to yet."""
    file_id = uuid7()
    world.objects.write(key_of(file_id), content)
    about = {"id": file_id, "key": key_of(file_id), "content_type": PDF_TYPE, "created_at": now()}
    world.sql(insert(files).values(**about, size=len(content), sha256=sha256(content), **more))
    return UUID(bytes=file_id.bytes)


def about(finding: dict[str, Any]) -> tuple[str, str, str | None]:
    return finding["code"], finding["file"], finding["document_id"]


def give_a_past(world: World, document_id: str) -> None:
    """Have a document have had another file, with a result and a file of that."""
    owner = world.value(select(documents.c.owner_id))
    of = {"document_id": UUID(document_id), "owner_id": owner}
    about = {"filename": "a.pdf", "content_type": PDF_TYPE, "sha256": "0" * 64, "keep": False}
    made = {"job_id": uuid4(), "processor_version": "1", "params": {}, "input_sha256": "0" * 64, "data": {}}
    first, second, third = (new_file(world, b"x" * size) for size in (10, 20, 30))
    world.sql(
        update(documents).where(documents.c.id == UUID(document_id)).values(file_number=2),
        insert(previous_files).values(
            **of, number=1, file_id=first, size=10, stored_at=now(), replaced_at=now(), **about
        ),
        insert(previous_results).values(
            **of, file_number=1, processor="text", file_id=second, size=99, created_at=now(), **made
        ),
        insert(previous_result_files).values(
            **of, file_number=1, processor="text", number=1, name="a", file_id=third, size=30
        ),
    )


def live(world: World) -> list[str]:
    """A bit of everything that is in order, and that might be taken for something else. Returns documents."""
    user = world.user
    made = world.processed(processor="maker", params={"documents": 2, "files": 1})
    plain, old, trashed, held = world.processed(), world.processed(), world.processed(), user.upload()["id"]
    give_a_past(world, old)
    assert user.http.delete(f"/documents/{trashed}").status_code == 204
    world.sql(update(documents).where(documents.c.id == UUID(held)).values(hold="a lawsuit", expires_at=now(-9e6)))
    unsent, sent = announce(user, pdf("unsent")), announce(user, pdf("sent"))
    assert put(sent, pdf("sent")) == 200
    rejected = announce(user, b"no document")
    assert put(rejected, b"no document") == 200
    assert complete(user, rejected).status_code == 422
    reserved = uuid7()
    world.objects.write(key_of(reserved), b"made by an attempt")
    about = {"content_type": "", "size": 0, "created_at": now(), "discarded_at": now(600)}
    world.sql(insert(files).values(id=reserved, key=key_of(reserved), **about))
    assert unsent != sent
    return [made, plain, old, trashed, held]


def test_a_service_in_order_and_what_goes_wrong_with_its_files(there: World) -> None:
    made, plain, old, trashed, held = live(there)
    found, summary = there.check("--deep", "--rate", "0")
    assert (found, summary["files"]) == ([], summary["objects"])
    there.server.stop()
    objects, keys = there.objects, {each: there.key(each) for each in (made, plain, old, trashed, held)}
    was = objects.read(keys[plain])
    objects.write(keys[plain], bytes([was[0] ^ 1]) + was[1:])
    objects.write(keys[trashed], objects.read(keys[trashed])[:-1])
    objects.delete(keys[held])
    previous = there.value(select(files.c.key).join(previous_files, previous_files.c.file_id == files.c.id))
    objects.delete(previous)
    stray = key_of(uuid7())
    objects.write(stray, b"nobody's")
    objects.write("documents/README", b"not ours")
    if isinstance(objects, InBucket):
        objects.write("documents/", b"")  # as consoles make folders
    was_sha256 = there.value(select(files.c.sha256).where(files.c.key == keys[trashed]))
    unreferenced = key_of(new_file(there, b"forgotten"))
    discarded = key_of(new_file(there, b"not removed", discarded_at=now(-3600)))
    time.sleep(8 if "STORAGE_URL" in there.server.settings else 0)  # the grace, which S3 dates to the second
    expected = [
        ("file-discarded", discarded, None),
        ("file-misplaced", "documents/README", None),
        ("file-missing", keys[held], held),
        ("file-missing", previous, old),
        ("file-unknown", stray, None),
        ("file-unreferenced", unreferenced, None),
        ("size-differs", keys[trashed], trashed),
    ]
    found, _ = there.check()
    assert sorted(map(about, found), key=str) == sorted(expected, key=str)
    assert {each["detail"].partition("SHA-256 is ")[2] for each in found if each["file"] == keys[trashed]} == {
        was_sha256
    }
    expected.append(("content-differs", keys[plain], plain))
    deep, summary = there.check("--deep", "--rate", "0")
    assert sorted(map(about, deep), key=str) == sorted(expected, key=str)
    assert summary["bytes"] > 0
    (damaged,) = (each["detail"] for each in deep if each["code"] == "content-differs")
    assert damaged.endswith(sha256(was))
    said = [each for each in there.check("--deep", "--rate", "0", "--repair")[0] if "repaired" in each]
    assert {(each["code"], each["repaired"]) for each in said if "backup" in each["detail"]} == {
        ("size-differs", False),
        ("content-differs", False),
    }


def test_what_lies_in_the_wrong_place_is_seen_and_left_alone(tmp_path: Path) -> None:
    """The sweep looks at each second; of what it does not remove, it says nothing."""
    settings = {"ORPHAN_GRACE_SECONDS": "1"}
    with world(Server(tmp_path / "var", settings), OnDisk(tmp_path / "var" / "files")) as there:
        kept = there.user.upload()["id"]
        uploaded = there.user.upload()["id"]
        root, key = tmp_path / "var" / "files", there.key(uploaded)
        name = key.rpartition("/")[2]
        flat, unknown = root / "documents" / name, str(uuid7())[:-2]
        (root / "documents" / name[-2:] / name).rename(flat)
        others = ["documents/aa/stray", f"documents/aa/{unknown}ab", f"documents/ab/cd/{unknown}cd", "documents/notes"]
        for each in others:
            path = root / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not the service's")
            os.utime(path, (0, 0))
        os.utime(flat, (0, 0))
        orphan = key_of(f"{unknown}ee")
        there.objects.write(orphan, b"an orphan")
        until(lambda: there.server.logs("storage.orphan_removed"))
        assert {each["key"] for each in there.server.logs("storage.orphan_removed")} == {orphan}
        found, _ = there.check()
        assert sorted((each["code"], each["file"]) for each in found) == [
            *[("file-misplaced", each) for each in sorted([*others, str(flat.relative_to(root))])],
            ("file-missing", key),
        ]
        (of_flat,) = (each for each in found if each["file"] == key and each["code"] == "file-misplaced")
        assert f"belongs at documents/{name[-2:]}/{name}" in of_flat["detail"]
        assert all((root / each).read_bytes() == b"not the service's" for each in others)
        assert there.user.http.get(f"/documents/{kept}/content").status_code == 200


def test_states_that_contradict_each_other(on_disk: World) -> None:
    world, user = on_disk, on_disk.user
    stuck, stray, lost, expired, numbered, rowless, overdue, late, fine = (world.processed() for _ in range(9))
    binned, waiting = user.upload()["id"], user.upload()["id"]
    world.processed()
    assert world.codes() == []
    world.server.stop()

    def document(document_id: str, **values: Any) -> Any:
        return update(documents).where(documents.c.id == UUID(document_id)).values(**values)

    def job_of(document_id: str) -> Any:
        return jobs.c.document_id == UUID(document_id)

    def revived(document_id: str, **values: Any) -> Any:
        values = {"state": "QUEUED", "finished_at": None, "locked_until": None, **values}
        return update(jobs).where(job_of(document_id)).values(**values)

    owner = world.value(select(documents.c.owner_id))
    of = {"event": "document.results_expired", "at": now(), "actor": "worker:x", "data": {"processors": []}}
    event = insert(events).values(id=uuid4(), user_id=owner, document_id=UUID(expired), **of)
    previous = {"filename": "a", "content_type": PDF_TYPE, "size": 5, "sha256": "0" * 64, "keep": False}
    world.sql(
        document(stuck, status="PROCESSING"),
        revived(stray),
        delete(results).where(results.c.document_id.in_([UUID(lost), UUID(expired)])),
        event,
        insert(previous_files).values(
            document_id=UUID(numbered),
            number=1,
            owner_id=owner,
            file_id=new_file(world, b"five!"),
            stored_at=now(),
            replaced_at=now(),
            **previous,
        ),
        document(rowless, file_id=uuid4()),
        document(overdue, deleted_at=now(-40 * 86400)),
        document(late, expires_at=now(-2 * 86400)),
        document(fine, deleted_at=now(-40 * 86400), hold="a lawsuit"),
        document(binned, deleted_at=now(-60)),
        document(waiting, status="PROCESSING", job_id=uuid4()),
    )
    found = [each for each in world.codes() if each[0] != "audit-trail"]
    assert found == sorted(
        [
            ("processing-without-job", stuck),
            ("processing-without-job", waiting),
            ("job-without-processing", stray),
            ("result-missing", lost),
            ("file-number-wrong", numbered),
            ("file-row-missing", rowless),
            ("file-unreferenced", None),
            ("trash-overdue", overdue),
            ("expiry-overdue", late),
        ],
        key=str,
    )


def test_what_may_not_be_removed_yet_is_not_overdue(tmp_path: Path) -> None:
    """What was restored is kept for as long again; what is at work, on hold, or announced is not removed."""
    settings = {"RETENTION_SECONDS": str(10 * DAY), "TRASH_SECONDS": str(30 * DAY)}
    with world(Server(tmp_path / "var", settings), OnDisk(tmp_path / "var" / "files")) as there:
        restored, held, late, at_work = (there.processed() for _ in range(4))
        unsent = announce(there.user, pdf("unsent"))["document_id"]

        def document(document_id: str, **values: Any) -> Any:
            return update(documents).where(documents.c.id == UUID(document_id)).values(**values)

        there.sql(document(restored, created_at=now(-12 * DAY), deleted_at=now(-60)))
        assert there.user.http.post(f"/documents/{restored}/restore").status_code == 200
        there.server.stop()
        live = {"state": "QUEUED", "finished_at": None, "locked_until": None}
        there.sql(
            document(held, created_at=now(-12 * DAY), hold="a lawsuit"),
            document(at_work, expires_at=now(-2 * DAY), status="PROCESSING"),
            update(jobs).where(jobs.c.document_id == UUID(at_work)).values(**live),
            document(unsent, created_at=now(-12 * DAY)),
        )
        assert there.codes() == []
        there.sql(document(late, created_at=now(-12 * DAY)))
        assert there.codes() == [("expiry-overdue", late)]


def test_a_lease_that_nobody_rescues(on_disk: World) -> None:
    document_id = on_disk.processed()
    on_disk.server.stop()
    held = {"state": "RUNNING", "finished_at": None, "locked_by": "worker:x", "locked_at": now(-3600)}
    of = jobs.c.document_id == UUID(document_id)
    in_process = update(documents).values(status="PROCESSING")
    on_disk.sql(in_process, update(jobs).where(of).values(**held, locked_until=now(-200)))
    assert on_disk.codes() == []
    on_disk.sql(update(jobs).where(of).values(locked_until=now(-3600)))
    assert on_disk.codes() == [("lease-overdue", document_id)]


def test_usage_that_was_counted_wrongly_is_counted_anew(there: World) -> None:
    live(there)
    other = there.server.register()
    other.upload()
    assert there.codes() == []
    owner = there.value(select(users.c.id).where(users.c.email == there.user.email))
    right = there.user.http.get("/auth/me").json()["usage"]
    there.sql(update(usage).where(usage.c.user_id == owner).values(bytes=1, announced=usage.c.announced + 1))
    found, _ = there.check()
    (finding,) = found
    assert (finding["code"], finding["owner_id"]) == ("usage-differs", str(owner))
    assert f"{right['bytes']} bytes" in finding["detail"]
    assert there.codes() == [("usage-differs", None)], "nothing was repaired"
    lines, summary = there.check("--repair")
    assert [line.get("repaired") for line in lines] == [None, True]
    assert summary["repaired"] == 1
    assert there.user.http.get("/auth/me").json()["usage"] == right
    assert there.codes() == []
    recounted = there.value(select(events.c.data).where(events.c.event == "usage.recounted"))
    assert recounted["after"]["bytes"] == right["bytes"]
    there.sql(delete(usage).where(usage.c.user_id == owner))
    assert there.codes("--repair") == [("usage-differs", None), ("usage-differs", None)]
    assert there.user.http.get("/auth/me").json()["usage"] == right


def test_what_is_repaired_loses_nothing(on_disk: World) -> None:
    world, user = on_disk, on_disk.user
    stuck, waiting, done, binned = user.upload()["id"], user.upload()["id"], world.processed(), user.upload()["id"]
    keys = [world.key(each) for each in (stuck, waiting, done)]
    world.sql(
        update(documents).where(documents.c.id == UUID(stuck)).values(status="PROCESSING", job_id=uuid4()),
        update(documents).where(documents.c.id == UUID(binned)).values(deleted_at=now()),
    )
    for each in (waiting, done, binned):
        world.objects.delete(world.key(each))
    rows = world.value(select(func.count()).select_from(files))
    missing = [("file-missing", each) for each in (done, waiting, binned)]
    expected = sorted([*missing, ("processing-without-job", stuck)])
    lines, summary = world.check("--repair")
    assert sorted((each["code"], each["document_id"]) for each in lines if "repaired" not in each) == expected
    assert {each["document_id"]: each["repaired"] for each in lines if "repaired" in each} == {
        stuck: True,
        waiting: True,
        done: False,
        binned: False,
    }
    assert summary["repaired"] == 2
    for document_id, code in ((stuck, "job-lost"), (waiting, "file-missing")):
        document = user.document(document_id)
        assert (document["status"], document["error"]["code"]) == ("FAILED", code)
        story = [each for each in user.events(document_id) if each["event"] == "document.status_changed"]
        assert (story[-1]["data"]["new"], story[-1]["actor"]) == ("FAILED", "operator")
        assert user.http.get(f"/documents/{document_id}/result").json()["code"] == "processing-failed"
    assert user.document(done)["status"] == "COMPLETED"
    assert user.http.get(f"/documents/{done}/result").status_code == 200
    assert world.value(select(func.count()).select_from(files)) == rows
    assert user.finished(user.start(stuck, **QUICK)["id"])["state"] == "SUCCEEDED"
    world.objects.write(keys[1], b"")
    assert [each["repaired"] for each in world.check("--repair")[0] if "repaired" in each] == [False] * 3


def test_of_very_many_missing_files_no_document_is_marked(on_disk: World) -> None:
    uploaded = [on_disk.user.upload()["id"] for _ in range(12)]
    for document_id in uploaded[1:]:
        on_disk.objects.delete(on_disk.key(document_id))
    lines, summary = on_disk.check("--repair")
    assert (summary["codes"], summary["repaired"]) == ({"file-missing": 11}, 0)
    assert "look at the storage first" in lines[-1]["detail"]
    assert {on_disk.user.document(each)["status"] for each in uploaded} == {"UPLOADED"}


def test_what_cannot_be_checked_is_not_called_right_or_wrong(on_disk: World, tmp_path: Path) -> None:
    on_disk.user.upload()
    on_disk.server.stop()
    environment = on_disk.server.environment

    def refused(**other: str) -> str:
        done = run("check", "--json", **environment | other)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = done.stderr.splitlines()[-1:]
        assert line.startswith("check: it could not be checked: ")
        return line

    with world_of_another(tmp_path) as other:
        assert "belong to another database" in refused(STORAGE_URL=f"file://{other}/files")
    another_disk = tmp_path / "disk" / "lost+found"
    another_disk.mkdir(parents=True)
    assert "there is no mark" in refused(STORAGE_URL=f"file://{another_disk.parent}")
    refused(STORAGE_URL="s3://bucket?endpoint=http://127.0.0.1:1", **ENVIRONMENT)
    refused(DATABASE_URL="postgresql+asyncpg://nobody@127.0.0.1:1/none")
    assert "RETENTION_SECONDS" in refused(RETENTION_SECONDS="a year")


def test_where_there_is_no_service_none_is_made(tmp_path: Path) -> None:
    """An environment that names the wrong folder, an empty database, or a disk that is not mounted."""
    wrong, empty, there = tmp_path / "wrong", tmp_path / "empty", tmp_path / "there"
    for each in (empty, there, there / "files", there / "files" / "staging"):
        each.mkdir()
    with databases.engine(there).connect():  # an empty file, on SQLite
        (there / "app.db").touch()

    def refused(data_dir: Path, **more: str) -> str:
        done = run("check", "--json", JWT_SECRET="s" * 32, DATA_DIR=str(data_dir), **more)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("check: it could not be checked: "), line
        return line

    assert "there is no service at" in refused(wrong)
    assert "there is no service at" in refused(empty)
    database = databases.settings(there)
    assert "there is no service at" in refused(there, **database)
    with databases.engine(there).connect() as conn:
        assert inspect(conn).get_table_names() == []
    prepared = tmp_path / "prepared"
    databases.prepare(prepared)
    database = databases.settings(prepared)
    assert "there is nothing in" in refused(prepared, STORAGE_URL=f"file://{empty}", **database)
    assert "there is no folder" in refused(prepared, STORAGE_URL=f"file://{wrong}", **database)
    assert not wrong.exists()
    assert list(empty.iterdir()) == []


@contextmanager
def world_of_another(tmp_path: Path) -> Iterator[Path]:
    with Server(tmp_path / "other") as server:
        server.register().upload()
        server.stop()
        yield server.data_dir


def test_what_is_changed_past_the_service_shows_in_its_trail(on_disk: World) -> None:
    on_disk.user.upload()
    on_disk.sql(update(events).where(events.c.event == "document.uploaded").values(actor="user:nobody"))
    ((code, about),) = on_disk.codes()
    assert (code, about) == ("audit-trail", None)


def test_people_read_lines(on_disk: World) -> None:
    document_id = on_disk.user.upload()["id"]
    young = on_disk.server.data_dir / "files" / "documents" / "00" / f"{str(uuid7())[:-2]}00"
    young.parent.mkdir(exist_ok=True)
    young.write_bytes(b"an upload whose row is not committed yet")
    done = run("check", **on_disk.server.environment)
    assert (done.returncode, done.stdout.startswith("Nothing is wrong. ")) == (0, True)
    key = on_disk.key(document_id)
    on_disk.objects.write(key, b"short")
    done = run("check", **on_disk.server.environment)
    first, last = done.stdout.splitlines()
    assert first.startswith(f"size-differs: document {document_id}, {key}: the document's file has 5 bytes")
    assert (done.returncode, last.startswith("findings: 1, ")) == (1, True)


def test_nothing_under_way_is_called_wrong(there: World) -> None:
    """While files are uploaded, processed and deleted, one check after the other finds nothing."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def live_on(user: User) -> None:
        try:
            while not stop.is_set():
                kept = user.upload()["id"]
                user.finished(user.start(kept, processor="maker", params={"documents": 1, "files": 1})["id"])
                user.http.delete(f"/documents/{user.upload()['id']}?permanent=true")
                assert user.http.delete(f"/documents/{kept}").status_code == 204
                assert user.http.post(f"/documents/{kept}/restore").status_code == 200
                user.http.delete(f"/documents/{kept}")
                upload = announce(user, pdf("sent"))
                put(upload, pdf("sent"))
                complete(user, upload)
                user.start(upload["document_id"], **QUICK)
        except BaseException as error:
            failures.append(error)
            raise

    people = [threading.Thread(target=live_on, args=(there.server.register(),)) for _ in range(3)]
    for each in people:
        each.start()
    try:
        for _ in range(4):
            found, summary = there.check("--deep", "--rate", "0")
            assert found == []
        assert summary["files"] > 10
    finally:
        stop.set()
        for each in people:
            each.join()
    assert not failures


def scrub_again(world: World) -> None:
    """Have a day pass since the last round."""
    world.sql(update(scrubs).values(began_at=now(-2 * ROUND), completed_at=now(-2 * ROUND)))


def test_the_scrubber_finds_what_rots_and_says_so(there: World) -> None:
    def alarm() -> str:
        alarms: dict[str, str] = there.user.http.get("/readyz").json()["alarms"]
        return alarms.get("scrub", "")

    def rounds() -> int:
        return len(there.server.logs("storage.scrubbed"))

    made, plain, *_ = live(there)
    assert metric(there.server, "storage_scrub_last_complete_timestamp_seconds") == 0
    there.server.stop()
    there.user = there.server.restarted(there.user, SCRUB_BYTES_PER_SECOND="10000000", ORPHAN_GRACE_SECONDS="1")
    until(lambda: rounds() == 1)
    until(lambda: metric(there.server, "storage_scrub_last_complete_timestamp_seconds") > time.time() - 60)
    assert alarm() == ""
    key, other = there.key(plain), there.key(made)
    was = there.objects.read(key)
    there.objects.write(key, was[:-1] + bytes([was[-1] ^ 1]))
    there.objects.delete(other)
    scrub_again(there)
    until(lambda: rounds() == 2)
    until(alarm)
    assert alarm().startswith("stored files that are missing or damaged: 2; ")
    told = {(each["kind"], each["file"], each["document_id"]) for each in there.server.logs("storage.mismatch")}
    assert told == {("content", key, plain), ("missing", other, made)}
    assert all(each["level"] == "warning" for each in there.server.logs("storage.mismatch"))
    assert there.value(select(func.count()).where(events.c.event == "storage.mismatch")) == 2
    for kind in ("content", "missing"):
        until(lambda kind=kind: metric(there.server, "storage_mismatches_total", kind=kind) == 1)
    there.objects.write(key, was)
    assert there.user.http.delete(f"/documents/{made}?permanent=true").status_code == 204
    there.server.kill()
    there.user = there.server.restarted(there.user)
    until(alarm)
    scrub_again(there)
    until(lambda: rounds() == 3)
    until(lambda: not alarm())


def test_a_deep_check_that_finds_no_file_damaged_ends_the_alarm(on_disk: World) -> None:
    document_id = on_disk.user.upload()["id"]
    key = on_disk.key(document_id)
    was = on_disk.objects.read(key)

    def alarm() -> bool:
        return "scrub" in on_disk.user.http.get("/readyz").json()["alarms"]

    on_disk.server.stop()
    on_disk.user = on_disk.server.restarted(on_disk.user, SCRUB_BYTES_PER_SECOND="10000000", ORPHAN_GRACE_SECONDS="1")
    on_disk.objects.write(key, was[:-1])
    scrub_again(on_disk)
    until(lambda: on_disk.server.logs("storage.mismatch"))
    until(alarm)
    assert [code for code, _ in on_disk.codes("--deep", "--rate", "0")] == ["size-differs"]
    on_disk.objects.write(key, was)
    assert on_disk.codes() == []
    assert alarm(), "not all files were read"
    assert on_disk.codes("--deep", "--rate", "0") == []
    until(lambda: not alarm())


async def test_what_is_found_during_a_deep_check_is_not_forgiven(tmp_path: Path) -> None:
    databases.prepare(tmp_path / "var")
    db = databases.database(tmp_path / "var")
    row = {"name": "files", "began_at": now(), "mismatches": 1, "mismatches_before": 2}
    await db.write(lambda conn: conn.execute(insert(scrubs).values(**row)))
    known = await db.read(scrubber_module.tally)
    await db.write(lambda conn: conn.execute(update(scrubs).values(mismatches=2)))
    await db.write(lambda conn: scrubber_module.forgive(conn, known))
    assert await db.read(scrubber_module.tally) == (2, 2)
    await db.write(lambda conn: scrubber_module.forgive(conn, scrubber_module.Tally(2, 2)))
    assert await db.read(scrubber_module.tally) == (0, 0)
    await db.close()


async def test_a_round_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file a slice, by two processes in turn: each file is read once."""
    read: list[str] = []
    monkeypatch.setattr(scrubber_module, "SLICE", 0.0)
    db, storage = databases.database(tmp_path / "var"), LocalStorage(tmp_path / "files")
    await asyncio.to_thread(db.migrate)
    claim: Any = AsyncMock()
    rows = []
    for number in range(5):
        file_id, content = uuid7(), b"%d" % number
        async with storage.create(key_of(file_id)) as staged:
            await staged.write([content])
            await staged.commit()
        about = {"content_type": PDF_TYPE, "created_at": now(), "size": 1, "sha256": sha256(content)}
        rows.append({"id": file_id, "key": key_of(file_id), **about})
    await db.write(lambda conn: [conn.execute(insert(files).values(row)) for row in rows])
    compared = Reader.wrong_with

    async def noted(self: Reader, file: Any) -> Any:
        read.append(file.key)
        return await compared(self, file)

    monkeypatch.setattr(Reader, "wrong_with", noted)
    one, other = (Scrubber(db, storage, claim, 10**9) for _ in range(2))
    for each in (one, other) * 4:
        await each.scrub()
    assert read == [row["key"] for row in rows]
    assert await db.read(scrubber_module.last_complete) == pytest.approx(time.time(), abs=60)
    await storage.close()
    await db.close()


async def test_what_changes_between_two_looks_is_not_called_wrong(
    on_disk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows have been read when the storage is listed; and what refers to files, before both."""
    world, user = on_disk, on_disk.user
    deleted, left_out, moved, stuck = (user.upload()["id"] for _ in range(4))
    keys = {each: world.key(each) for each in (deleted, left_out, moved, stuck)}
    db, storage = databases.database(world.server.data_dir), LocalStorage(world.server.data_dir / "files")
    added: list[UUID] = []
    asleep, read = asyncio.sleep, References.read

    async def listing() -> AsyncIterator[list[Listed]]:
        world.sql(
            delete(documents).where(documents.c.id == UUID(deleted)),
            update(files).where(files.c.key == keys[deleted]).values(discarded_at=now()),
        )
        world.objects.delete(keys[deleted])
        new_file(world, b"stored just now", discarded_at=now(600))
        world.sql(
            update(documents).where(documents.c.id == UUID(stuck)).values(status="PROCESSING", job_id=uuid4()),
        )
        async for page in LocalStorage.listing(storage):
            yield [each for each in page if each.key != keys[left_out]]

    async def reading(self: References, db: Any) -> AsyncIterator[Any]:
        async for finding in read(self, db):
            yield finding
        if not added:
            added.append(new_file(world, b"published"))
            world.sql(
                update(documents).where(documents.c.id == UUID(moved)).values(file_id=added[0]),
                update(files).where(files.c.key == keys[moved]).values(discarded_at=now()),
            )

    async def restored(seconds: float) -> None:
        world.sql(update(documents).where(documents.c.id == UUID(stuck)).values(status="UPLOADED", job_id=None))
        await asleep(seconds)

    monkeypatch.setattr(storage, "listing", listing)
    monkeypatch.setattr(References, "read", reading)
    monkeypatch.setattr(findings_module, "asyncio", Mock(sleep=restored))
    settings = load(orphan_grace_seconds=5)
    found = [each async for each in Check(db, storage, AsyncMock(), settings).run()]
    assert [each for each in found if each.code != "audit-trail"] == []
    await storage.close()
    await db.close()


@pytest.mark.long
async def test_memory_does_not_grow_with_what_is_checked(tmp_path: Path) -> None:
    """A million files take as much: see tests/benchmarks/check.py."""

    async def peak(count: int) -> int:
        data_dir = tmp_path / str(count)
        databases.prepare(data_dir)
        fill(databases.engine(data_dir), count)
        db, bucket = databases.database(data_dir), Bucket(count)
        checked = Check(db, cast("Storage", bucket), AsyncMock(), load())
        tracemalloc.start()
        try:
            assert [finding async for finding in checked.run()] == []
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await db.close()

    await peak(100)  # statements are compiled once
    assert await peak(8000) - await peak(2000) < 500_000


def test_what_somebody_has_put_among_the_files_is_named_once_it_is_old(on_disk: World) -> None:
    key = on_disk.key(str(on_disk.user.upload()["id"]))
    folder = on_disk.server.data_dir / "files/documents"
    misplaced = folder / "zz" / key.rpartition("/")[2]
    misplaced.parent.mkdir()
    misplaced.write_bytes(b"a copy")
    (folder / "yy").write_bytes(b"no folder")
    os.mkfifo(folder / "zz" / "pipe")
    (folder / "zz" / "a\nb\udcff").touch()
    (folder / "zz" / "loop").symlink_to("loop")
    assert on_disk.codes("--deep", "--rate", "0") == []
    others = [folder / "yy", *(folder / "zz").iterdir()]
    for each in others:
        os.utime(each, (0, 0), follow_symlinks=False)
    assert on_disk.codes("--deep", "--rate", "0") == [("file-misplaced", None)] * len(others)
    *lines, _ = run("check", **on_disk.server.environment).stdout.splitlines()
    assert len(lines) == len(others)
    assert r"documents/zz/a\nb\udcff" in "".join(lines)


async def test_a_storage_that_lists_its_files_in_another_order_is_not_checked(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    databases.prepare(data_dir)
    db, bucket = databases.database(data_dir), Mock(wraps=Bucket(3))

    async def listing() -> AsyncIterator[list[Listed]]:
        async for page in Bucket(3).listing():
            yield page[::-1]

    bucket.listing = listing
    with pytest.raises(StorageUnavailable, match="order"):
        [each async for each in Check(db, bucket, AsyncMock(), load()).run()]
    await db.close()


async def test_no_more_bytes_are_read_than_the_rate_allows() -> None:
    rate, began = Rate(1_000_000), time.monotonic()
    for _ in range(4):
        await rate.passed(100_000)
    assert 0.39 < time.monotonic() - began < 2
