"""Workers elsewhere that lose their server: nothing is lost, and nothing is done twice."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database import now
from app.events import events
from app.jobs.models import jobs
from tests.support import databases
from tests.support.elsewhere import STATED, Insistent, Worker, described
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

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


def begun(user: User, job_id: str) -> None:
    until(lambda: user.http.get(f"/jobs/{job_id}").json()["state"] == "WAITING")


def lose(server: Server, job_id: str) -> None:
    """Have its lease end. The server notices within a second."""
    hold(server, job_id, -1)


def hold(server: Server, job_id: str, seconds: float) -> None:
    """Have its lease end in so many seconds, until a heartbeat comes."""
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(update(jobs).where(jobs.c.id == UUID(job_id)).values(locked_until=now(seconds)))


def told(server: Server, job_id: str) -> Counter[str]:
    """What happened to the job, and how often."""
    found = Ledger(server.data_dir).rows(select(events.c.event).where(events.c.job_id == UUID(job_id)))
    return Counter(row.event for row in found)


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children").json()["items"]
    return found


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


def test_two_files_of_one_name_on_their_way_at_once(server: Server, user: User, key: str) -> None:
    """The first that has arrived keeps it, and the other can be sent by another name."""
    user.start(user.upload()["id"], processor="count")
    worker, under_way, arrived = Worker(Insistent(server.url), key), Event(), Event()
    assert worker.claim().status_code == 200

    def slowly() -> Iterator[bytes]:
        yield b"half"
        under_way.set()
        assert arrived.wait(30)
        yield b"and half"

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(worker.send, 0, cast("bytes", slowly()), "same.txt")
        assert under_way.wait(30)
        assert worker.send(1, b"whole", "same.txt").status_code == 200
        arrived.set()
        refused = slow.result()
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/name")
    assert worker.complete({"count": 1}, [{"number": 1}]).json() == {"state": "SUCCEEDED"}


def test_a_revoked_key_ends_what_was_claimed_with_it(server: Server, user: User) -> None:
    operator = server.operator().http
    made = operator.post("/api-keys", json={"name": "stolen", "scopes": ["worker"]}).json()
    job = user.start(user.upload()["id"], processor="count")
    worker = Worker(Insistent(server.url), made["key"])
    assert worker.claim().status_code == 200
    assert worker.beat().status_code == 200
    assert operator.delete(f"/api-keys/{made['id']}").is_success
    for answer in (worker.beat(), worker.ask("GET", "inputs/0"), worker.send(0), worker.complete(), worker.fail()):
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid-job-token")
    assert user.http.post(f"/jobs/{job['id']}/cancel").is_success


def test_nobody_works_for_a_processor(tmp_path: Path) -> None:
    """What waits is an alarm, until somebody holds a job of it; not while an operator has paused it."""

    def alarm() -> str:
        text: str = server.client().get("/readyz").json()["alarms"].get("queues", "")
        return text

    def seen(wanted: str, meanwhile: Callable[[], bool] = lambda: True) -> None:
        """What is due is counted the less often, the longer that takes: every 25 s, if half a second."""
        until(lambda: meanwhile() and alarm() == wanted, 80, failure=alarm)

    settings = {"REMOTE_PROCESSORS": str(described(tmp_path)), "LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user, operator = server.register(), server.operator().http
        for _ in range(2):
            user.start(user.upload()["id"], processor="count")
        assert alarm() == "", "workers may be about to come"
        seen("due jobs that no worker elsewhere claims: process/count@1 (2)")
        assert operator.post("/admin/processors/count/pause", json={"reason": "for a while"}).is_success
        seen("")
        assert operator.post("/admin/processors/count/resume").is_success
        seen("due jobs that no worker elsewhere claims: process/count@1 (2)")
        wanted = {"name": "a worker", "scopes": ["worker"]}
        worker = Worker(Insistent(server.url), operator.post("/api-keys", json=wanted).json()["key"])
        until(lambda: worker.claim().status_code == 200)
        seen("", lambda: worker.beat().is_success)


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
