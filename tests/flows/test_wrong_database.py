"""A service whose database is not the one that its files belong to: it removes none, says so, and there is a way on."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import delete, func, select

from app.documents.models import documents
from app.events import events
from app.files import models
from app.storage.s3.storage import MARK
from tests.flows.test_object_storage import ENVIRONMENT
from tests.flows.test_transfer import on_sqlite
from tests.support import databases
from tests.support.seaweed import BUCKET, Prefix
from tests.support.server import Server, User, until
from tests.support.zygote import Forked

GRACE = 1.5
SETTINGS = {"ORPHAN_GRACE_SECONDS": str(GRACE), "JWT_SECRET": "the same at every place as a backup has it"}
ORPHAN = "01939f3e-5c00-7000-8000-0000000000ff"
REFUSAL = "configuration: STORAGE_URL, or DATABASE_URL: "
FOREIGN = f"{REFUSAL}the files there belong to another database, or to a newer state of this one; "
WAY_ON = "if this database is the right one, run: python -m app adopt\n"


@dataclass
class Place:
    """Where files are, as services are told, and what is there, as it is seen past them."""

    settings: dict[str, str]
    files: Callable[[], set[str]]
    put: Callable[[str], None]
    mark: Callable[[], str]
    forget_mark: Callable[[], None]
    started: list[Server] = field(default_factory=list)

    def server(self, data_dir: Path, **settings: str) -> Server:
        server = Server(data_dir, SETTINGS | self.settings | settings)
        self.started.append(server)
        return server

    def marked(self, data_dir: Path) -> None:
        """Wait until the mark names the latest event of a database."""
        until(lambda: self.mark().startswith(f"{latest(data_dir)} "))


def disk(folder: Path) -> Place:
    def put(name: str) -> None:
        path = folder / "documents" / name[-2:] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"orphan")
        os.utime(path, (0, 0))

    return Place(
        {"STORAGE_URL": f"file://{folder}"},
        lambda: {path.name for path in folder.glob("documents/??/*")},
        put,
        lambda: "".join(path.name for path in (folder / "mark").glob("*")),
        lambda: shutil.rmtree(folder / "mark"),
    )


def bucket(prefix: Prefix) -> Place:
    client, name = prefix.seaweed.client, {"Bucket": BUCKET, "Key": f"{prefix.name}/{MARK}"}

    def mark() -> str:
        with suppress(client.exceptions.NoSuchKey):
            return str(client.get_object(**name)["Body"].read(), "utf-8")
        return ""

    return Place(
        {"STORAGE_URL": prefix.url(), **ENVIRONMENT},
        lambda: {key.removeprefix("documents/") for key in prefix.objects()},
        lambda key: prefix.put(f"documents/{key}", b"orphan"),
        mark,
        lambda: client.delete_object(**name),
    )


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = disk(tmp_path / "files") if request.param == "disk" else bucket(request.getfixturevalue("prefix"))
    yield place
    for server in place.started:
        server.__exit__(None, None, None)


def latest(data_dir: Path) -> int:
    with databases.engine(data_dir).connect() as conn:
        found: int = conn.execute(select(func.max(events.c.seq))).scalar_one()
        return found


def command(server: Server, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of the command line, without its log, in the server's environment."""
    log = server.data_dir.parent / f"{arguments[0]}.log"
    log.unlink(missing_ok=True)
    code = Forked([*arguments], server.environment, log).wait()
    return code, "".join(line for line in log.read_text().splitlines(keepends=True) if not line.startswith("{"))


def assert_refused(server: Server, line: str) -> None:
    server.log_file.unlink(missing_ok=True)
    assert server.launch().wait(20) == 1
    assert server.log_file.read_text() == line


def alarms(server: Server) -> dict[str, str]:
    found: dict[str, str] = httpx2.get(f"{server.url}/readyz", timeout=60).json()["alarms"]
    return found


def answers(server: Server) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{server.url}/livez", timeout=60).status_code == 200
    return False


def readable(user: User, uploaded: list[dict[str, Any]]) -> bool:
    return all(user.http.get(f"/documents/{each['id']}/content").status_code == 200 for each in uploaded)


def test_another_database_that_is_empty(place: Place, tmp_path: Path) -> None:
    """What the page on operations has people type when they go to PostgreSQL, on the files of SQLite."""
    old = on_sqlite(tmp_path / "old", **SETTINGS, **place.settings)
    place.started.append(old)
    user = old.start().register()
    uploaded = [user.upload() for _ in range(3)]
    assert old.stop() == 0
    files, mark = place.files(), place.mark()
    new = place.server(tmp_path / "new")
    assert_refused(new, FOREIGN + WAY_ON)
    assert command(new, "sweep") == (1, FOREIGN + WAY_ON)
    assert (place.files(), place.mark()) == (files, mark)
    assert readable(old.restarted(user), uploaded), "the old one was not kept from its files"
    assert alarms(old) == {}
    old.stop()
    assert command(new, "adopt") == (
        0,
        "The files belong to this database now. Of the first 3 of them, 0 have a document in it.\n",
    )
    assert_refused(old, FOREIGN + WAY_ON)
    new.start()
    until(lambda: not place.files())  # three files are few enough, and the operator has said whose they are


def test_files_from_before_there_was_a_mark(place: Place, tmp_path: Path) -> None:
    old = place.server(tmp_path / "old").start()
    user = old.register()
    uploaded = [user.upload() for _ in range(3)]
    old.stop()
    place.forget_mark()
    new = place.server(tmp_path / "new")
    assert_refused(
        new, f"{REFUSAL}there are files, and not one of the first 3 has a document in this database; {WAY_ON}"
    )
    assert len(place.files()) == 3
    assert readable(old.restarted(user), uploaded)
    place.marked(tmp_path / "old")


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_a_restored_dump(place: Place, tmp_path: Path, end: str) -> None:
    server = place.server(tmp_path / "var").start()
    user = server.register()
    before = [user.upload() for _ in range(2)]
    databases.copy(tmp_path / "var", tmp_path / "restored")
    after = [user.upload() for _ in range(12)]
    if end == "SIGTERM":
        server.stop()
    else:
        place.marked(tmp_path / "var")
        server.kill()
    restored = place.server(tmp_path / "restored")
    assert_refused(restored, FOREIGN + WAY_ON)
    assert place.files() == {each["id"] for each in before + after}
    code, output = command(restored, "adopt")
    assert code == 0
    assert output.endswith("Of the first 14 of them, 2 have a document in it.\n")
    restored.start()
    assert readable(user.at(restored), before)
    until(lambda: restored.logs("storage.sweep_stopped"))
    assert len(place.files()) == 14, "so many files without a document are not removed unasked"
    assert "12 of 14 files belong to no document that this database has or once contained" in alarms(restored)["upkeep"]


def test_a_copy_that_is_started_while_the_original_goes_on(place: Place, tmp_path: Path) -> None:
    original = place.server(tmp_path / "var").start()
    user = original.register()
    uploaded = [user.upload()]
    place.marked(tmp_path / "var")
    databases.copy(tmp_path / "var", tmp_path / "copy")
    copy = place.server(tmp_path / "copy").start()  # so far it knows all that has ever happened
    uploaded += [user.upload() for _ in range(3)]
    for server in (copy, original):
        until(lambda at=server: "storage" in alarms(at))
        assert server.logs("storage.disputed")
        assert httpx2.get(f"{server.url}/readyz", timeout=60).status_code == 200
    assert "disputed by" in place.mark()
    assert place.files() == {each["id"] for each in uploaded}
    assert readable(user, uploaded)
    copied = user.at(copy)
    assert copied.http.delete(f"/documents/{uploaded[0]['id']}?permanent=true").status_code == 204
    assert readable(user, uploaded), "what the copy deletes is the original's"

    copy.stop()
    original.stop()
    original.start()  # it is a party to the dispute: a stray copy does not keep it from serving
    assert "two databases claim the files there" in alarms(original)["storage"]
    assert command(original, "adopt")[0] == 0
    assert_refused(copy, FOREIGN + WAY_ON)
    until(lambda: alarms(original) == {})
    place.put(ORPHAN)
    until(lambda: ORPHAN not in place.files())
    assert place.files() == {each["id"] for each in uploaded}


def test_processes_of_one_service_do_not_dispute_each_other(place: Place, tmp_path: Path) -> None:
    servers = [place.server(tmp_path / "var").start() for _ in range(2)]
    users = [servers[0].register()]
    users.append(users[0].at(servers[1]))
    place.put(ORPHAN)
    marks = set()
    while ORPHAN in place.files() or len(marks) < 4:
        for user in users:
            user.upload()
        marks.add(place.mark())
        time.sleep(0.1)
    for server in servers:
        assert alarms(server) == {}
        assert not server.logs("storage.disputed")


@pytest.mark.long
def test_rows_that_go_behind_the_services_back(place: Place, tmp_path: Path) -> None:
    with place.server(tmp_path / "var", ORPHAN_GRACE_SECONDS="3600") as server:
        user = server.register()
        kept, *lost = [user.upload() for _ in range(12)]
        server.stop()
        with databases.engine(tmp_path / "var").begin() as conn:
            for table in (documents, models.files):
                conn.execute(delete(table).where(table.c.id != UUID(kept["id"])))
        time.sleep(GRACE + 1)  # S3 dates to the second: all are to be old enough, or some would be few
        server.restarted(user, ORPHAN_GRACE_SECONDS=str(GRACE))
        until(lambda: server.logs("storage.sweep_stopped"))
        told = "11 of 12 files belong to no document that this database has or once contained"
        way_on = f"{told}: none of them was removed; to remove them, run: python -m app sweep --yes"
        assert alarms(server) == {"upkeep": f"orphan-files: {way_on}"}
        assert (
            'document_api_upkeep_skipped_total{chore="orphan-files"}'
            in httpx2.get(f"{server.url}/metrics", timeout=60).text
        )
        assert command(server, "sweep") == (1, f"skipped: orphan-files: {way_on}\n")
        assert place.files() == {each["id"] for each in [kept, *lost]}
        assert command(server, "sweep", "--yes") == (0, f"{told}: they are removed now\nEverything is swept.\n")
        assert place.files() == {kept["id"]}
        until(lambda: alarms(server) == {})


@pytest.mark.long
def test_files_of_deleted_documents_are_removed_however_many(tmp_path: Path) -> None:
    """A process that dies while it removes them leaves orphans that this database knows it had."""
    place = disk(tmp_path / "files")
    with place.server(tmp_path / "var", ORPHAN_GRACE_SECONDS="60") as server:
        user = server.register()
        uploaded = [user.upload() for _ in range(12)]
        for each in uploaded:
            user.http.delete(f"/documents/{each['id']}?permanent=true")
        until(lambda: not place.files())
        place.marked(tmp_path / "var")
        for each in uploaded:
            place.put(each["id"])
        assert command(server, "sweep") == (0, "Everything is swept.\n")
        assert place.files() == set()


def test_no_sweep_at_a_start(tmp_path: Path) -> None:
    place = disk(tmp_path / "files")
    with place.server(tmp_path / "var", ORPHAN_GRACE_SECONDS="3600") as server:
        server.register().upload()
        place.put(ORPHAN)
        server.stop()
        server.start()
        place.marked(tmp_path / "var")
        assert ORPHAN in place.files()


@pytest.mark.long
def test_a_storage_that_is_away_at_the_start_is_looked_at_when_it_is_back(prefix: Prefix, tmp_path: Path) -> None:
    place = bucket(prefix)
    with place.server(tmp_path / "old") as old:
        old.register().upload()
        old.stop()
    with prefix.seaweed.relay() as relay:
        relay.cut()
        new = Server(tmp_path / "new", SETTINGS | place.settings | {"STORAGE_URL": prefix.url(relay.port)})
        new.launch()
        try:
            until(lambda: answers(new))
            relay.mend()
            until(lambda: "another database" in alarms(new).get("storage", ""))
            assert len(place.files()) == 1
        finally:
            new.kill()
