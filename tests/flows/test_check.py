"""`python -m app check`: what is lost, damaged or contradicts itself is named, and nothing else, on either storage."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, update
from uuid_utils.compat import uuid7

from app.database import now
from app.documents.models import documents, previous_files
from app.files.models import files, key_of
from app.processing.models import previous_result_files, previous_results
from tests.flows.test_object_storage import ENVIRONMENT
from tests.support import databases
from tests.support.direct_uploads import announce, complete, put, sha256
from tests.support.factories import PDF_TYPE, pdf
from tests.support.maker import NAMED
from tests.support.seaweed import BUCKET, Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.zygote import run

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
    in_trash = update(documents).where(documents.c.id == UUID(trashed))
    world.sql(
        in_trash.values(deleted_at=now(-3600)),
        update(documents).where(documents.c.id == UUID(held)).values(hold="a lawsuit", expires_at=now(-9e6)),
    )
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
    assert there.codes("--deep", "--rate", "0") == []
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
    unreferenced = key_of(new_file(there, b"forgotten"))
    discarded = key_of(new_file(there, b"not removed", discarded_at=now(-3600)))
    time.sleep(6.5 if "STORAGE_URL" in there.server.settings else 0)  # the grace, which S3 dates to the second
    expected = [
        ("file-discarded", discarded, None),
        ("file-missing", keys[held], held),
        ("file-missing", previous, old),
        ("file-unknown", stray, None),
        ("file-unreferenced", unreferenced, None),
        ("size-differs", keys[trashed], trashed),
    ]
    found, _ = there.check()
    assert sorted(map(about, found), key=str) == sorted(expected, key=str)
    expected.append(("content-differs", keys[plain], plain))
    deep, summary = there.check("--deep", "--rate", "0")
    assert sorted(map(about, deep), key=str) == sorted(expected, key=str)
    assert summary["bytes"] > 0
