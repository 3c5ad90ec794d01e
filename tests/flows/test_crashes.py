"""Servers that are killed, frozen, or told to stop: nothing that was accepted is lost or done twice."""

import fcntl
import hashlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx2
import pytest

from tests.support import databases
from tests.support.factories import pdf
from tests.support.server import Server, pair
from tests.support.user import User
from tests.support.waiting import until

T = TypeVar("T")

FILLER = b"%PDF-1.7\n%" + bytes(8 * 1024**2)


def test_a_job_killed_midway_is_finished_by_the_next_start(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "1.5"}) as server:
        user = server.register()
        document_id, job_id = user.begin(seconds=1.5)
        server.kill()
        user = server.restarted(user)
        assert user.document(document_id)["status"] == "PROCESSING"
        finished = user.finished(job_id)
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 2)
        assert user.story(document_id) == ["queued", "started", "lease_lost", "started", "succeeded"]
        changes = [event["data"].get("new") for event in user.events(document_id)]
        assert [new for new in changes if new] == ["PROCESSING", "COMPLETED"]
        assert user.http.get(finished["result_url"]).status_code == 200


def test_a_job_out_of_tries_dies_with_its_server(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "1", "JOB_MAX_TRIES": "1"}) as server:
        user = server.register()
        document_id, job_id = user.begin(seconds=60)
        server.kill()
        user = server.restarted(user)
        finished = user.finished(job_id)
        assert (finished["state"], finished["dead"], finished["error"]["code"]) == ("FAILED", True, "lease-lost")
        assert user.document(document_id)["error"] == finished["error"]
        assert user.story(document_id) == ["queued", "started", "lease_lost", "failed"]


def test_jobs_accepted_but_not_begun_are_run_by_the_next_start(tmp_path: Path) -> None:
    # Under the long default lease: they do not have to wait for it.
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "1"}) as server:
        user = server.register()
        user.begin(seconds=60)
        documents = [user.upload()["id"] for _ in range(5)]
        waiting = [user.start(document_id)["id"] for document_id in documents]
        server.kill()
        user = server.restarted(user)
        for document_id, job_id in zip(documents, waiting, strict=True):
            finished = user.finished(job_id, timeout=15)
            assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)
            assert user.story(document_id) == ["queued", "started", "succeeded"]


def test_jobs_that_an_operator_runs_again_are_run_once_each_though_the_server_dies_midway(tmp_path: Path) -> None:
    """Each owner's jobs are a transaction of their own; the server is killed after the first."""
    with Server(tmp_path / "var", {"FAULT": "bulk.after_part:1"}) as server:
        users, operator = [server.register(), server.register()], server.operator()
        failed = [(user, user.upload()["id"]) for user in users for _ in range(2)]
        for user, document_id in failed:
            user.finished(user.start(document_id, params={"seconds": 0, "fail": "permanent"})["id"])
        operator.http.post("/admin/processors/simulated/pause")
        wanted = {"filter": {}, "confirm": 4}
        with pytest.raises(httpx2.TransportError):
            operator.http.post("/admin/jobs/rerun", json=wanted)
        operator = server.restarted(operator, FAULT="")
        assert operator.http.post("/admin/jobs/rerun", json=wanted).json()["changed"] == 2, "the rest"
        assert operator.http.post("/admin/jobs/rerun", json=wanted).json()["changed"] == 0
        operator.http.post("/admin/processors/simulated/resume")
        for user, document_id in failed:
            mine = user.at(server)
            mine.finished(mine.document(document_id)["job_id"])
            assert mine.story(document_id) == ["queued", "started", "failed"] * 2


def freeze(server: Server) -> None:
    """SIGSTOP, but not within a transaction of SQLite: the others could not write either."""
    if databases.POSTGRESQL:
        server.signal(signal.SIGSTOP)
        return
    with (server.data_dir / "app.db.lock").open() as turns:
        while True:
            server.signal(signal.SIGSTOP)
            try:
                fcntl.flock(turns, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                server.signal(signal.SIGCONT)
                time.sleep(0.01)
            else:
                return


def begun_at(user: User, seconds: float) -> tuple[str, str]:
    """A document and its job, which the user's own server runs: another one that looks for work may be quicker."""
    for _ in range(10):
        document_id, job_id = user.begin(seconds)
        started = [event for event in user.events(document_id) if event["event"] == "job.started"][-1]
        if started["actor"].endswith(f":{user.server.pid}"):
            return document_id, job_id
        user.http.post(f"/jobs/{job_id}/cancel")
    raise AssertionError("the other server is always quicker")


def frozen_at_work(user: User, second: User, seconds: float, progress: float = 0) -> tuple[str, str]:
    """A document and its job, whose server was frozen when it had come so far. Seen from the second server."""
    for _ in range(10):
        user.server.signal(signal.SIGCONT)
        document_id, job_id = begun_at(user, seconds)
        until(lambda of=job_id: user.job(of)["progress"] >= progress)
        freeze(user.server)
        if second.job(job_id)["state"] == "RUNNING":
            return document_id, job_id
    raise AssertionError("too slow to catch it at work")


def thaw(zombie: Server, job_id: str) -> None:
    """SIGCONT, and wait until it has found out that the job is not its own any more."""
    zombie.signal(signal.SIGCONT)
    until(lambda: job_id in [line["job_id"] for name in ("stopped", "fenced") for line in zombie.logs(f"job.{name}")])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[User, User]]:
    """A user at a server that is to become a zombie, and at the one that takes over. Each runs one job at a time."""
    with pair(tmp_path_factory.mktemp("two") / "var", LEASE_SECONDS="1.5", JOB_CONCURRENCY="1") as (zombie, server):
        user = zombie.register()
        yield user, user.at(server)


def test_a_zombie_that_wakes_after_the_end_changes_nothing(two: tuple[User, User]) -> None:
    def seen() -> tuple[Any, ...]:
        events = [event for event in second.events(document_id) if event["event"] != "job.fenced"]
        return events, second.document(document_id), second.http.get(f"/documents/{document_id}/result").json()

    user, second = two
    # Its work is over as soon as it wakes, so that it comes to settle.
    document_id, job_id = frozen_at_work(user, second, seconds=0.25)
    assert second.finished(job_id)["attempt"] == 2
    before = seen()
    thaw(user.server, job_id)
    assert seen() == before
    assert second.story(document_id)[:5] == ["queued", "started", "lease_lost", "started", "succeeded"]


def test_a_zombie_that_wakes_while_another_works_is_fenced(two: tuple[User, User]) -> None:
    user, second = two
    document_id, job_id = frozen_at_work(user, second, seconds=2, progress=0.1)
    until(lambda: second.job(job_id)["attempt"] == 2)
    thaw(user.server, job_id)
    assert second.finished(job_id)["attempt"] == 2
    (succeeded,) = [event for event in second.events(document_id) if event["event"] == "job.succeeded"]
    assert succeeded["data"]["attempt"] == 2
    assert succeeded["actor"].endswith(f":{second.server.pid}")
    assert second.document(document_id)["status"] == "COMPLETED"


def test_a_zombie_that_wakes_while_its_job_is_queued_must_claim_it_anew(two: tuple[User, User]) -> None:
    user, second = two
    _, ahead = begun_at(second, 60)
    document_id, job_id = frozen_at_work(user, second, seconds=2, progress=0.1)
    until(lambda: second.job(job_id)["state"] == "QUEUED")
    thaw(user.server, job_id)
    second.http.post(f"/jobs/{ahead}/cancel")
    assert second.finished(job_id)["attempt"] == 2
    told = [name for name in second.story(document_id) if name != "fenced"]
    assert told == ["queued", "started", "lease_lost", "started", "succeeded"]


def test_a_worker_stops_soon_after_its_job_was_cancelled_elsewhere(tmp_path: Path) -> None:
    # Under the long default lease: it is the heartbeat that must tell it.
    with pair(tmp_path / "var", JOB_CONCURRENCY="1") as (server, other):
        user = server.register()
        _, job_id = user.begin(seconds=60)
        assert user.at(other).http.post(f"/jobs/{job_id}/cancel").status_code == 202
        until(lambda: server.logs("job.stopped"), timeout=5)
        user.begin(seconds=0)


def test_uploads_cut_off_by_a_kill_leave_whole_documents_or_nothing(tmp_path: Path) -> None:
    killed = threading.Event()
    accepted = {}

    def upload_on_and_on(user: User) -> None:
        while True:
            content = pdf(uuid4().hex).replace(b"%PDF-1.7", FILLER)
            answer = user.post_file(content)
            assert answer.status_code == 201
            accepted[answer.json()["id"]] = hashlib.sha256(content).hexdigest()

    def upload_half(user: User) -> None:
        def body() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + FILLER
            killed.wait(20)
            yield b"\r\n--x--\r\n"

        user.http.post("/documents", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    def stored() -> set[str]:
        return {path.name for path in files.rglob("*") if path.is_file() and path.name != "mark"}

    def staged() -> int:
        return sum(path.stat().st_size for path in files.glob("staging/*"))

    files = tmp_path / "var" / "files"
    with ThreadPoolExecutor() as threads, Server(tmp_path / "var") as server:
        user = server.register()
        uploads = [threads.submit(upload, user.at(server)) for upload in [upload_on_and_on] * 3 + [upload_half]]
        until(lambda: len(accepted) >= 6 and staged() > len(FILLER) / 2)
        server.kill()
        killed.set()
        assert all(isinstance(upload.exception(), httpx2.TransportError) for upload in uploads)
        assert staged()
        user = server.restarted(user, ORPHAN_GRACE_SECONDS="0.5")
        documents = {each["id"]: each["sha256"] for each in user.http.get("/documents?limit=100").json()["items"]}
        assert accepted.items() <= documents.items()
        until(lambda: stored() == set(documents))
        for document_id, sha256 in documents.items():
            content = user.http.get(f"/documents/{document_id}/content").content
            assert hashlib.sha256(content).hexdigest() == sha256
