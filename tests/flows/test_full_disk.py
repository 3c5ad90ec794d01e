"""A disk that is full, or takes no writes: what is refused leaves nothing, what was accepted is kept."""

import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import User
from tests.support.volume import Volume
from tests.support.waiting import until

pytestmark = pytest.mark.sqlite

KILOBYTE, MEGABYTE = 1024, 1024**2
LARGE = pdf("x" * 900 * KILOBYTE)


def readiness(user: User) -> tuple[int, set[str]]:
    """The status of /readyz, and the names of what failed."""
    answer = user.http.get("/readyz")
    return answer.status_code, {name for name, state in answer.json()["checks"].items() if state != "ok"}


def assert_refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


def read_everywhere(user: User, document_id: str, job_id: str) -> list[Any]:
    """What every call that reads answers."""
    paths = ["", f"/{document_id}", f"/{document_id}/content", f"/{document_id}/timeline", f"/{document_id}/result"]
    answers = [user.http.get(path) for path in ["/auth/me", "/jobs", *(f"/documents{path}" for path in paths)]]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert user.http.get(f"/jobs/{job_id}").json()["state"] in {"QUEUED", "RUNNING"}
    assert user.http.get("/livez").status_code == 200
    return [answer.content for answer in answers if answer.url.path != "/jobs"]


def retry(user: User, document_id: str) -> None:
    """What was refused is done under the same keys, as if it had never been asked for."""
    uploaded = user.post_file(LARGE, key="upload")
    assert user.http.get(f"{uploaded.headers['location']}/content").content == LARGE
    processed = user.process(document_id, key="process", force=True)
    user.finished(processed.json()["job"]["id"])
    assert [answer.status_code for answer in (uploaded, processed)] == [201, 202]
    assert not {"idempotent-replayed"} & {*uploaded.headers, *processed.headers}


def completed(user: User) -> str:
    """A document that has been processed."""
    document_id: str = user.upload()["id"]
    user.finished(user.start(document_id)["id"])
    return document_id


def check_all(server: Server, data: Path, tmp_path: Path) -> None:
    """Nothing lost, doubled or half done. SQLite finds no file by a path into a namespace: it gets a copy."""
    assert server.stop() == 0
    ledger = Ledger(shutil.copytree(data, tmp_path / "copy"))
    ledger.settle()
    ledger.check()


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    """The files have a disk of their own."""
    files = tmp_path / "var" / "files"
    with Volume(files, MEGABYTE) as volume, Server(tmp_path / "var", prefix=volume.prefix) as server:
        user = server.register()
        document_id = completed(user)
        with volume.full(leaving=600 * KILOBYTE):  # it has begun to arrive
            assert_refused(user.post_file(LARGE, key="upload"), 507, "storage-full")
            assert {path.name for path in volume.seen.rglob("*") if path.is_file()} == {"filler", document_id}
            assert [each["id"] for each in user.http.get("/documents").json()["items"]] == [document_id]
        with volume.full():
            assert_refused(user.post_file(pdf(), key="small"), 507, "storage-full")
            until(lambda: readiness(user) == (503, {"storage"}), timeout=5)
            assert user.http.get("/livez").status_code == 200
            job = user.start(document_id, force=True)
            assert user.finished(job["id"])["state"] == "SUCCEEDED", "the database has room"
        until(lambda: readiness(user) == (200, set()), timeout=5)
        retry(user, document_id)
        shutil.copytree(volume.seen, files, dirs_exist_ok=True)
        assert server.stop() == 0
    ledger = Ledger(tmp_path / "var")
    ledger.settle()
    ledger.check()


@pytest.mark.parametrize("lease", ["30", "2"], ids=["for a moment", "for longer than a lease"])
def test_everything_on_one_full_disk(tmp_path: Path, lease: str) -> None:
    settings = {"LEASE_SECONDS": lease, "JOB_CONCURRENCY": "1"}
    with (
        Volume(tmp_path / "var", 6 * MEGABYTE) as volume,
        Server(tmp_path / "var", settings, prefix=volume.prefix) as server,
    ):
        user = server.register()
        document_id = completed(user)
        waiting = user.upload()["id"]
        _, at_work = user.begin(seconds=1.5)
        jobs = [at_work, user.start(waiting, params={"seconds": 0})["id"]]
        with volume.full():
            before = read_everywhere(user, document_id, jobs[1])
            for name, write in user.writes(document_id, jobs[1]).items():
                assert_refused(write(), 507, "storage-full")
                method, path = name.split()
                assert "507" in user.http.get("/openapi.json").json()["paths"][path][method]["responses"], name
            until(lambda: readiness(user) == (503, {"database", "storage"}), timeout=5)
            if lease == "30":
                time.sleep(2)  # the first job ends, and its outcome cannot be written
            else:
                until(lambda: server.logs("job.attempt_interrupted"))
            assert read_everywhere(user, document_id, jobs[1]) == before
            assert len(list(volume.seen.glob("files/*/*/*"))) == 3
            assert not list(volume.seen.glob("files/staging/*"))
        until(lambda: readiness(user) == (200, set()), timeout=5)
        finished = [user.finished(job_id, timeout=15) for job_id in jobs]
        assert [job["state"] for job in finished] == ["SUCCEEDED", "SUCCEEDED"]
        assert [job["attempt"] for job in finished] == ([1, 1] if lease == "30" else [2, 1])
        retry(user, document_id)
        check_all(server, volume.seen, tmp_path)


def test_a_read_only_disk_for_the_files(tmp_path: Path) -> None:
    files = tmp_path / "var" / "files"
    with Volume(files, MEGABYTE) as volume, Server(tmp_path / "var", prefix=volume.prefix) as server:
        user = server.register()
        document_id = completed(user)
        content = user.http.get(f"/documents/{document_id}/content").content
        volume.remount("ro")
        assert_refused(user.post_file(LARGE, key="upload"), 503, "storage-unavailable")
        until(lambda: readiness(user) == (503, {"storage"}), timeout=5)
        assert user.http.get(f"/documents/{document_id}/content").content == content
        assert user.finished(user.start(document_id, force=True)["id"])["state"] == "SUCCEEDED"
        volume.remount("rw")
        until(lambda: readiness(user) == (200, set()), timeout=5)
        retry(user, document_id)


@contextmanager
def unwritable(server: Server) -> Iterator[None]:
    """Refuse the server every write to any file, open ones and its log included, as a disk that failed does."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits other processes")
def test_a_data_folder_that_takes_no_writes(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "1"}) as server:
        user = server.register()
        document_id = completed(user)
        waiting = user.upload()["id"]
        _, at_work = user.begin(seconds=1.5)
        jobs = [at_work, user.start(waiting, params={"seconds": 0})["id"]]
        with unwritable(server):
            before = read_everywhere(user, document_id, jobs[1])
            for name, write in user.writes(document_id, jobs[1]).items():
                part = "storage" if name == "post /documents" else "database"
                assert_refused(write(), 503, f"{part}-unavailable")
            until(lambda: readiness(user) == (503, {"database", "storage"}), timeout=5)
            assert read_everywhere(user, document_id, jobs[1]) == before
        until(lambda: readiness(user) == (200, set()), timeout=5)
        assert [user.finished(job_id)["attempt"] for job_id in jobs] == [1, 1]
        retry(user, document_id)
        Ledger(tmp_path / "var").settle()
        Ledger(tmp_path / "var").check()
