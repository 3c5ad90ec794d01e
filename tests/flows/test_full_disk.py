"""A disk that is full, or takes no writes: what is refused leaves nothing, what was accepted is kept."""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.test_uploads import answered, begun, part
from tests.support import direct_uploads
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


@pytest.mark.long
def test_files_that_do_not_fit(tmp_path: Path) -> None:
    """The files have a disk of their own."""
    files, settings = tmp_path / "var" / "files", {"RESERVE_BYTES": "0"}
    with Volume(files, MEGABYTE) as volume, Server(tmp_path / "var", settings, prefix=volume.prefix) as server:
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


def begun_upload(user: User) -> tuple[int, str]:
    """The answer to an upload of which only the first bytes are sent."""
    with begun(user, part(b"%PDF-1.7"), length=5 * MEGABYTE) as connection:
        return answered(connection)


def operate(server: Server, *arguments: str) -> None:
    """A command of the operator, where the server runs."""
    command = [*server.prefix, sys.executable, "-m", "app", *arguments]
    subprocess.run(command, env=server.environment, check=True, capture_output=True)


ADDING = (
    "post /auth/register",
    "post /api-keys",
    "post /documents",
    "post /documents/initiate-upload",
    "patch /documents/{document_id}",
    "post /documents/{document_id}/process",
)


def going_on(user: User, document_id: str, job_id: str) -> None:
    """What must go on for as long as possible: each is answered as if there were room."""
    calls = user.writes(document_id, job_id)
    tokens = calls["post /auth/login"]().json()
    token = {"refresh_token": tokens["refresh_token"]}
    token = {"refresh_token": user.http.post("/auth/refresh", json=token).json()["refresh_token"]}
    assert user.http.post("/auth/logout", json=token).status_code == 204
    assert calls["post /jobs/{job_id}/cancel"]().status_code == 202
    assert calls["delete /documents/{document_id}"]().status_code == 204


def test_the_reserve_refuses_what_adds_and_is_for_what_must_go_on(tmp_path: Path) -> None:
    with (
        Volume(tmp_path / "var", 40 * MEGABYTE) as volume,
        Server(tmp_path / "var", {"JOB_CONCURRENCY": "1"}, prefix=volume.prefix) as server,
    ):
        user, other = server.register(), server.register()
        documents = [completed(user) for _ in range(2)]
        upload = direct_uploads.announce(user, LARGE)
        queued, at_work = [user.upload()["id"] for _ in range(2)], user.begin(seconds=2)[1]
        jobs = [user.start(each, params={"seconds": 60})["id"] for each in queued]
        with volume.full(leaving=MEGABYTE):  # less than 5 %
            until(lambda: "disk" in user.http.get("/readyz").json()["alarms"], timeout=5)
            assert begun_upload(user) == (507, "storage-full")
            assert direct_uploads.put(upload, LARGE) == 507
            assert readiness(user) == (200, set())
            calls = user.writes(documents[0], jobs[0])
            for name in ADDING:
                assert_refused(calls[name](), 507, "storage-full")
            going_on(user, documents[0], jobs[0])
            assert user.finished(at_work)["state"] == "SUCCEEDED"
            operate(server, "users", "disable", other.email)
            assert other.http.get("/auth/me").status_code == 401
        with volume.full():
            going_on(user, documents[1], jobs[1])
            assert server.logs("database.ballast_dropped")
        until(lambda: user.post_file(LARGE).status_code == 201, timeout=5)
        until(lambda: (volume.seen / "app.db.ballast").exists() or user.upload(), timeout=30)
        check_all(server, volume.seen, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("lease", ["30", "6"], ids=["for a moment", "for longer than a lease"])
def test_everything_on_one_full_disk(tmp_path: Path, lease: str) -> None:
    """The reserve and the ballast are used up."""
    settings = {"LEASE_SECONDS": lease, "JOB_CONCURRENCY": "1", "RESERVE_BYTES": "0"}
    with (
        Volume(tmp_path / "var", 6 * MEGABYTE) as volume,
        Server(tmp_path / "var", settings, prefix=volume.prefix) as server,
    ):
        user = server.register()
        document_id = completed(user)
        waiting = user.upload()["id"]
        _, at_work = user.begin(seconds=1.5 if lease == "30" else 4.5)
        jobs = [at_work, user.start(waiting, params={"seconds": 0})["id"]]
        (volume.seen / "app.db.ballast").unlink()
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
                # Which of the two, is a matter of whether the work or the lease ends first.
                until(lambda: server.logs("job.attempt_interrupted") or server.logs("job.stopped"))
            assert read_everywhere(user, document_id, jobs[1]) == before
            assert len(list(volume.seen.glob("files/*/*/*"))) == 3
            assert not list(volume.seen.glob("files/staging/*"))
        until(lambda: readiness(user) == (200, set()), timeout=5)
        finished = [user.finished(job_id, timeout=30) for job_id in jobs]
        assert [job["state"] for job in finished] == ["SUCCEEDED", "SUCCEEDED"]
        assert [job["attempt"] for job in finished] == ([1, 1] if lease == "30" else [2, 1])
        retry(user, document_id)
        check_all(server, volume.seen, tmp_path)


@pytest.mark.long
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
