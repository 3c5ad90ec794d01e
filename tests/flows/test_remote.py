"""Workers elsewhere that die, freeze or lose their server: nothing is lost, and nothing is done twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database import now
from app.events import events
from app.jobs.models import jobs
from tests.support import databases, reaper
from tests.support.elsewhere import STATED, Insistent, Worker, described
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

EXAMPLE = Path(__file__).parents[2] / "examples/remote_worker.py"
QUICK = {name: stated | {"lease_seconds": 10} for name, stated in STATED.items()}
CHILDREN = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = {"REMOTE_PROCESSORS": str(described(tmp_path, QUICK)), "DRAIN_SECONDS": "0.5", "JOB_MAX_TRIES": "100"}
    with Server(tmp_path / "var", settings) as running:
        yield running
        ledger = Ledger(running.data_dir)
        ledger.settle()
        ledger.check()


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


@pytest.fixture
def key(server: Server) -> str:
    wanted = {"name": "a worker", "scopes": ["worker"]}
    made: str = server.operator().http.post("/api-keys", json=wanted).json()["key"]
    return made


class Program:
    """The example, as a process; `said` is what it has printed."""

    def __init__(self, server: Server, key: str, log: Path, *, seconds: float) -> None:
        self._log = log
        env = {"API_KEY": key, "WORK_SECONDS": str(seconds), "PATH": os.environ["PATH"], "WORKER_NAME": log.stem}
        command = [sys.executable, str(EXAMPLE), server.url, "count"]
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        reaper.watch(self.process.pid)

    @property
    def said(self) -> str:
        return self._log.read_text()


@contextmanager
def program(server: Server, key: str, name: str, *, seconds: float = 0) -> Iterator[Program]:
    running = Program(server, key, server.data_dir.parent / f"{name}.log", seconds=seconds)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGCONT)
        running.process.kill()
        running.process.wait()


def begun(user: User, job_id: str) -> None:
    until(lambda: user.http.get(f"/jobs/{job_id}").json()["state"] == "WAITING")


def lose(server: Server, job_id: str) -> None:
    """Have its lease end. The server notices within a second."""
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(update(jobs).where(jobs.c.id == UUID(job_id)).values(locked_until=now(-1)))


def told(server: Server, job_id: str) -> Counter[str]:
    """What happened to the job, and how often."""
    found = Ledger(server.data_dir).rows(select(events.c.event).where(events.c.job_id == UUID(job_id)))
    return Counter(row.event for row in found)


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children").json()["items"]
    return found


def test_the_example_does_the_work(server: Server, user: User, key: str) -> None:
    """What is accepted while it waits begins at once."""
    with program(server, key, "one"):
        for _ in range(3):
            document = user.upload()
            began = time.monotonic()
            job = user.finished(user.start(document["id"], processor="count")["id"])
            assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
            result = user.http.get(f"/documents/{document['id']}/result").json()
            assert result["data"] == {"count": document["size"]}
        assert time.monotonic() - began < 5


def test_a_worker_that_is_killed(server: Server, user: User, key: str) -> None:
    job = user.start(user.upload()["id"], processor="count")
    with program(server, key, "first", seconds=60) as first:
        begun(user, job["id"])
        first.process.kill()
    lose(server, job["id"])
    with program(server, key, "second"):
        done = user.finished(job["id"])
    assert (done["state"], done["attempt"]) == ("SUCCEEDED", 2)
    happened = told(server, job["id"])
    assert (happened["job.lease_lost"], happened["job.succeeded"]) == (1, 1)


def test_a_worker_that_is_frozen_until_another_has_done_its_work(server: Server, user: User, key: str) -> None:
    job = user.start(user.upload()["id"], processor="count")
    with program(server, key, "first", seconds=2) as first:
        begun(user, job["id"])
        first.process.send_signal(signal.SIGSTOP)
        lose(server, job["id"])
        with program(server, key, "second") as second:
            assert user.finished(job["id"])["attempt"] == 2
            until(lambda: "SUCCEEDED" in second.said)
        first.process.send_signal(signal.SIGCONT)
        until(lambda: f"{job['id']} " in first.said, failure=lambda: first.said)
        assert "SUCCEEDED" not in first.said
        assert "lost" in first.said  # as it heard by itself, or was told
    assert told(server, job["id"])["job.succeeded"] == 1


def test_a_worker_hears_that_its_job_was_cancelled(server: Server, user: User, key: str) -> None:
    job = user.start(user.upload()["id"], processor="count")
    with program(server, key, "one", seconds=60) as one:
        begun(user, job["id"])
        assert user.http.post(f"/jobs/{job['id']}/cancel").is_success
        until(lambda: f"{job['id']} lost" in one.said, failure=lambda: one.said)


@pytest.mark.parametrize("seconds", [0, pytest.param(60, marks=pytest.mark.long)])
def test_the_service_is_away_when_the_work_is_done(server: Server, user: User, key: str, seconds: int) -> None:
    """For less than the lease, or for longer: then it may have to be done again."""
    job = user.start(user.upload()["id"], processor="count")
    with program(server, key, "one", seconds=1) as one:
        begun(user, job["id"])
        server.stop()
        until(lambda: "nobody answers" in one.said, failure=lambda: one.said)
        time.sleep(seconds)
        user = server.restarted(user)
        done = user.finished(job["id"])
    assert (done["state"], done["attempt"] in {1, 2 if seconds else 1}) == ("SUCCEEDED", True)
    assert told(server, job["id"])["job.succeeded"] == 1


# The hits of each point before the one at which the job is completed.
POINTS = {"outputs.before_publish": 1, "finish.before_commit": 2, "finish.after_commit": 1, "output.after_store": 2}


@pytest.mark.parametrize("point", POINTS)
def test_the_server_is_killed_under_a_worker(server: Server, user: User, key: str, point: str) -> None:
    """There are all of the documents or none, and once the worker has its answer all of them, once."""
    user = server.restarted(user, FAULT=f"{point}:{POINTS[point]}") if server.stop() == 0 else user
    document_id = user.upload()["id"]
    job = user.start(document_id, processor="cut")
    worker = Worker(Insistent(server.url), key)
    assert worker.claim("cut", wait=5).status_code == 200
    with ThreadPoolExecutor(1) as pool:
        completed = pool.submit(lambda: worker.complete({"parts": 1}, worker.send_documents(CHILDREN)))
        assert server.process is not None
        until(lambda: server.process is not None and server.process.poll() is not None)
        user = server.restarted(user, FAULT="")
        assert len(children(user, document_id)) in {0, CHILDREN}
        assert completed.result(60).json() == {"state": "SUCCEEDED"}
    assert len(children(user, document_id)) == CHILDREN
    assert user.http.get(f"/jobs/{job['id']}").json()["attempt"] == 1
    assert told(server, job["id"])["job.succeeded"] == 1


def test_nobody_works_for_a_processor(tmp_path: Path) -> None:
    """What waits is an alarm, until somebody holds a job of it; not while an operator has paused it."""

    def alarm() -> str:
        text: str = server.client().get("/readyz").json()["alarms"].get("queues", "")
        return text

    settings = {"REMOTE_PROCESSORS": str(described(tmp_path)), "LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user, operator = server.register(), server.operator().http
        for _ in range(2):
            user.start(user.upload()["id"], processor="count")
        assert alarm() == "", "workers may be about to come"
        until(lambda: alarm() == "due jobs that no worker elsewhere claims: process/count@1 (2)")
        assert operator.post("/admin/processors/count/pause", json={"reason": "for a while"}).is_success
        until(lambda: alarm() == "")
        assert operator.post("/admin/processors/count/resume").is_success
        until(lambda: "(2)" in alarm())
        wanted = {"name": "a worker", "scopes": ["worker"]}
        worker = Worker(Insistent(server.url), operator.post("/api-keys", json=wanted).json()["key"])
        until(lambda: worker.claim().status_code == 200)
        until(lambda: alarm() == "")


def test_a_claim_that_waits(server: Server, user: User, key: str) -> None:
    worker = Worker(Insistent(server.url), key)
    began = time.monotonic()
    assert worker.claim(wait=1).status_code == 204
    assert 1 <= time.monotonic() - began < 3
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(Worker(Insistent(server.url), key).claim, wait=8) for _ in range(8)]
        time.sleep(0.5)
        wanted = {user.start(user.upload()["id"], processor="count")["id"] for _ in range(4)}
        answers = [each.result() for each in waiting]
    claimed = [each.json()["job_id"] for each in answers if each.status_code == 200]
    assert sorted(claimed) == sorted(wanted)
    for job_id in wanted:
        user.http.post(f"/jobs/{job_id}/cancel")
