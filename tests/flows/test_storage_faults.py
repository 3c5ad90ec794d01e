"""What happens to files when the disk, the upkeep or the client misbehave."""

import asyncio
import errno
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from app.errors import NotFound, StorageUnavailable
from app.storage.local import LocalStorage
from tests.support.factories import PDF_TYPE, pdf
from tests.support.impatient import RATE_WINDOW
from tests.support.inprocess import Process
from tests.support.server import Server
from tests.support.user import PASSWORD


def test_a_slow_upload_is_not_taken_for_an_abandoned_one(tmp_path: Path) -> None:
    """The metadata part trickles in for longer than the grace, while the file waits in staging."""
    with Server(tmp_path / "var", {"ORPHAN_GRACE_SECONDS": "0.5"}) as server:
        user = server.register()
        file = pdf("x" * 600_000)
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.pdf"\r\n\r\n' + file

        def trickle() -> Iterator[bytes]:
            yield head + b'\r\n--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{'
            for _ in range(7):
                time.sleep(0.2)
                yield b" " * 1000
            yield b"}\r\n--b--\r\n"

        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = user.http.post("/documents", content=trickle(), headers=kind)
        assert answer.status_code == 201, answer.text
        time.sleep(1.2)
        assert user.http.get(f"/documents/{answer.json()['id']}/content").content == file


def test_abandoned_staging_and_orphans_are_removed(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"ORPHAN_GRACE_SECONDS": "0.5"}) as server:
        kept = server.register().upload()
        files = tmp_path / "var" / "files"
        (files / "staging" / "dead.part").write_bytes(b"half")
        orphan = files / "documents" / "ff" / "01939f3e-5c00-7000-8000-0000000000ff"
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"whole")
        foreign = files / "documents" / "ff" / ".nfs0001"
        foreign.write_bytes(b"not ours")
        deadline = time.monotonic() + 20
        while orphan.exists() or (files / "staging" / "dead.part").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert foreign.exists()
        assert list(files.glob(f"documents/*/{kept['id']}"))


def test_storage_that_is_away_is_not_a_missing_file(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "1"}) as server:
        user = server.register()
        document = user.upload()
        away = (tmp_path / "var" / "files").rename(tmp_path / "away")
        answers = [user.http.get(f"/documents/{document['id']}/content"), user.post_file(pdf())]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert {answer.json()["code"] for answer in answers} == {"storage-unavailable"}
        job = user.start(document["id"], params={"seconds": 0})
        while user.http.get(f"/jobs/{job['id']}").json()["error"] is None:
            time.sleep(0.05)
        away.rename(tmp_path / "var" / "files")
        assert user.finished(job["id"])["state"] == "SUCCEEDED"


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_disk_that_goes_during_an_upload_gets_no_folders_in_its_place(tmp_path: Path, *, mount_point: bool) -> None:
    async def commit_without_disk() -> None:
        storage = LocalStorage(root)
        async with storage.create("documents/it") as staged:
            await staged.write([b"it"])
            away(root, mount_point=mount_point)
            with pytest.raises(StorageUnavailable):
                await staged.commit()
        await storage.close()

    root = tmp_path / "files"
    asyncio.run(commit_without_disk())
    assert root.exists() == mount_point
    assert not mount_point or not [*root.iterdir()]


@pytest.mark.parametrize("mount_point", [False, True])
def test_nothing_is_deleted_on_a_disk_that_is_away(tmp_path: Path, *, mount_point: bool) -> None:
    async def delete_without_disk() -> None:
        storage = LocalStorage(root)
        away(root, mount_point=mount_point)
        with pytest.raises(StorageUnavailable):
            await storage.delete("documents/it")
        await storage.close()

    root = tmp_path / "files"
    asyncio.run(delete_without_disk())


def away(root: Path, *, mount_point: bool) -> None:
    """Take the disk away; with `mount_point` there is an empty folder in its place."""
    root.rename(root.with_name("away"))
    if mount_point:
        root.mkdir()


@pytest.mark.long
def test_a_fast_beginning_earns_no_slow_end(tmp_path: Path) -> None:
    """The minimum rate holds over each window: 500 KB at once do not pay for a trickle afterwards."""
    with Server(tmp_path / "var", {"UPLOAD_MIN_RATE": "10000"}, module="tests.support.impatient") as server:
        user = server.register()
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.pdf"\r\n\r\n%PDF-1.7\n'
        request = (
            f"POST /documents HTTP/1.1\r\nHost: a\r\nAuthorization: {user.http.headers['Authorization']}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000\r\n\r\n"
        )
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=0.5)) as connection:
            connection.sendall(request.encode() + head + b"x" * 500_000)
            assert trickle_until_answered(connection, RATE_WINDOW * 3).startswith(b"HTTP/1.1 408 ")


def trickle_until_answered(connection: socket.socket, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return connection.recv(4096)
        except TimeoutError:
            connection.sendall(b"x")
    raise AssertionError("it was never cut off")


def logged_in(process: Process) -> str:
    """The access token of a new user."""
    account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token: str = process.http("POST", "/auth/login", json=account).json()["access_token"]
    return token


@pytest.mark.sqlite
def test_a_commit_that_was_written_but_not_synced_keeps_the_file(tmp_path: Path) -> None:
    process, armed = Process(tmp_path / "var"), []
    token = logged_in(process)

    def fail(conn: Any) -> None:
        if armed:
            conn.exec_driver_sql(armed.pop())
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise OperationalError("COMMIT", None, error)

    event.listen(Engine, "commit", fail)
    try:
        armed.append("COMMIT")
        refused = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf("written"))})
    finally:
        event.remove(Engine, "commit", fail)
    assert (refused.status_code, refused.json()["code"]) == (503, "database-unavailable")
    [document] = process.http("GET", "/documents", token=token).json()["items"]
    assert process.http("GET", f"/documents/{document['id']}/content", token=token).content == pdf("written")
    process.kill()


def name_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def test_what_others_may_have_seen_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has linked the file is cancelled while its name is synced; it may have been verified by then."""
    fsync, linked, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        if name_of(descriptor) == "le":
            linked.set()
            assert go_on.wait(10)
        fsync(descriptor)

    async def commit() -> None:
        async with storage.create("documents/file") as staged:
            await staged.write([b"it"])
            await staged.commit()

    async def scenario() -> None:
        committing = asyncio.create_task(commit())
        await asyncio.to_thread(linked.wait, 10)
        assert [chunk async for chunk in storage.read("documents/file", 0, 9)] == [b"it"]
        committing.cancel()
        go_on.set()
        await asyncio.wait([committing])
        assert committing.cancelled()
        assert [chunk async for chunk in storage.read("documents/file", 0, 9)] == [b"it"]
        await storage.close()

    storage = LocalStorage(tmp_path / "files")
    monkeypatch.setattr(os, "fsync", slow)
    asyncio.run(scenario())
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_synced_is_the_file_and_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        storage = LocalStorage(tmp_path / "files")
        async with storage.create("documents/file") as staged:
            await staged.commit()
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(name_of(descriptor)))
        await storage.sync("documents/file")
        with pytest.raises(NotFound):
            await storage.sync("documents/other")
        await storage.close()

    synced: list[str] = []
    asyncio.run(scenario())
    assert synced == ["file", "le"]


def announced(process: Process, token: str, size: int) -> dict[str, str]:
    wanted = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": size}
    upload: dict[str, str] = process.http("POST", "/documents/initiate-upload", token=token, json=wanted).json()
    return upload


def test_nothing_is_uploaded_that_a_power_cut_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails to sync the name of a file that was sent, and later to sync it for the completion."""
    process = Process(tmp_path / "var")
    token, file = logged_in(process), pdf("sent")
    upload = announced(process, token, len(file))
    path = f"/documents/{upload['document_id']}"
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if name_of(descriptor) == upload["document_id"][-2:]:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    def put() -> int:
        return process.http("PUT", upload["upload_url"], content=file, kind=PDF_TYPE).status_code

    def complete() -> int:
        return process.http("POST", f"{path}/complete-upload", token=token).status_code

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert [put(), put(), complete()] == [503, 412, 503]
        assert process.http("GET", path, token=token).json()["status"] == "INITIATED"
    assert [put(), complete()] == [412, 200]
    assert process.http("GET", f"{path}/content", token=token).content == file
    process.kill()


@pytest.mark.parametrize(
    ("method", "suffix", "code"), [("DELETE", "", "not-found"), ("POST", "/complete-upload", "upload-rejected")]
)
@pytest.mark.long
def test_a_completion_whose_file_is_removed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, suffix: str, code: str
) -> None:
    process, other = (Process(tmp_path / "var") for _ in range(2))
    token, file = logged_in(process), b"no document"
    upload = announced(process, token, len(file))
    path = f"/documents/{upload['document_id']}"
    assert process.http("PUT", upload["upload_url"], content=file, kind=PDF_TYPE).status_code == 200
    meanwhile = [lambda: other.http(method, path + suffix, token=token)]
    fsync = os.fsync

    def interrupted(descriptor: int) -> None:
        if meanwhile and name_of(descriptor) == upload["document_id"]:
            meanwhile.pop()()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    assert process.http("POST", f"{path}/complete-upload", token=token).json()["code"] == code
    assert not meanwhile
    process.kill()
    other.kill()
