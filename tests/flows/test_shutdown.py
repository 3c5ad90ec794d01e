"""Servers that are told to stop, under load too: what they accepted is finished, or given back at once."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select

from app.events import events
from tests.flows.test_shares import DOCUMENTS, fill
from tests.support import databases
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.server import Server, pair
from tests.support.torture import LONG
from tests.support.user import User
from tests.support.waiting import until

GRACE = 10  # seconds beyond DRAIN_SECONDS within which a server is gone
PAUSE = 0.02  # seconds of each client between two requests: what is tested is no race for the processors


def test_a_long_job_is_given_back_on_sigterm_and_its_try_does_not_count(tmp_path: Path) -> None:
    # Under the long default lease: nobody has to wait for it to run out.
    with pair(tmp_path / "var", DRAIN_SECONDS="0.5", JOB_CONCURRENCY="1") as (stopping, server):
        user = stopping.register()
        second = user.at(server)
        document_id, job_id = user.begin(seconds=2)
        _, ahead = second.begin(seconds=60)
        asked_at = time.monotonic()
        assert stopping.stop() == 0
        assert time.monotonic() - asked_at < 5
        given_back = second.job(job_id)
        assert (given_back["state"], given_back["attempt"], given_back["error"]) == ("QUEUED", 0, None)
        assert second.story(document_id) == ["queued", "started", "released"]
        second.http.post(f"/jobs/{ahead}/cancel")
        until(lambda: second.job(job_id)["state"] == "RUNNING", timeout=8)
        finished = second.finished(job_id)
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)


def test_a_short_job_is_finished_on_sigterm(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        document_id, job_id = user.begin(seconds=2.5)
        server.signal(signal.SIGTERM)
        draining = until(lambda: (answer := user.http.get("/readyz")).status_code == 503 and answer, timeout=2)
        assert draining.json()["checks"]["shutdown"] == "draining"
        assert user.http.get("/livez").status_code == 200
        assert server.process.wait(8) == 0
        user = server.restarted(user)
        finished = user.job(job_id)
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)
        assert user.story(document_id) == ["queued", "started", "succeeded"]


def test_an_idle_server_stops_at_once(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        server.register()
        asked_at = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked_at < 3
        assert server.logs("server.stopped")


@pytest.mark.long
def test_a_job_claimed_too_late_is_given_back_as_well(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "var", {"DRAIN_SECONDS": "0.3"}) as server,
        databases.engine(server.data_dir).connect() as conn,
    ):
        user = server.register()
        for _ in range(50):
            job_id = user.start(user.upload()["id"], params={"seconds": 60})["id"]
            databases.lock(conn)  # accepted; now see to it that the claim takes its time
            if user.job(job_id)["state"] == "QUEUED":
                break
            conn.rollback()
            user.http.post(f"/jobs/{job_id}/cancel")
        server.signal(signal.SIGTERM)
        until(lambda: server.logs("server.draining"))
        time.sleep(0.5)
        conn.rollback()
        assert server.process.wait(10) == 0
        assert server.restarted(user).job(job_id)["attempt"] <= 1


def test_sigterm_during_uploads_and_jobs(tmp_path: Path) -> None:
    """Readiness fails first, requests finish, jobs are finished or passed on, and the exit is clean."""
    with ThreadPoolExecutor() as threads, pair(tmp_path / "var", DRAIN_SECONDS="1.5") as (stopping, other):
        user = stopping.register()
        second = user.at(other)
        _, short = user.begin(seconds=1)
        long_document, long = user.begin(seconds=6)
        under_way = threading.Event()
        upload = threads.submit(dribble, user.at(stopping), 2.5, under_way)
        poll = threads.submit(user.at(stopping).http.get, f"/jobs/{long}?wait=30")
        assert under_way.wait(5)
        asked_at = time.monotonic()
        stopping.signal(signal.SIGTERM)
        until(lambda: user.http.get("/readyz").status_code == 503, timeout=3)
        still_served = user.http.get("/livez")
        assert (still_served.status_code, still_served.headers["connection"]) == (200, "close")
        assert poll.result(5).json()["state"] == "RUNNING"
        assert upload.result(10).status_code == 201
        assert stopping.process is not None
        assert stopping.process.wait(20) == 0
        assert time.monotonic() - asked_at < 1.5 + GRACE
        for job_id in (short, long):
            finished = second.finished(job_id)
            assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)
        assert second.story(long_document) == ["queued", "started", "released", "started", "succeeded"]
        released, started = [
            datetime.fromisoformat(event["at"])
            for event in second.events(long_document)
            if event["event"] in {"job.released", "job.started"}
        ][-2:]
        assert (started - released).total_seconds() < 2
    ledger = Ledger(tmp_path / "var")
    ledger.check()


@pytest.mark.long
def test_searches_in_flight_do_not_keep_a_server_from_stopping(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"DRAIN_SECONDS": "0.5"}) as server, ThreadPoolExecutor(20) as threads:
        user = server.register()
        fill(server, user, DOCUMENTS)

        def search(client: httpx2.Client) -> None:
            with suppress(httpx2.TransportError):
                client.get("/documents?q=zq")

        for each in [user.at(server) for _ in range(20)]:
            threads.submit(search, each.http)
        time.sleep(0.5)
        asked_at = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked_at < 0.5 + GRACE


def test_a_request_on_its_way_to_a_stopping_server_is_answered(tmp_path: Path) -> None:
    """Over a connection that was idle when the server began to close its connections."""
    with Server(tmp_path / "var") as server:
        user = server.register()
        server.signal(signal.SIGTERM)
        until(lambda: server.logs("Shutting down"))
        answer = user.http.get("/documents")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert server.process is not None
        assert server.process.wait(5) == 0


def dribble(user: User, seconds: float, under_way: threading.Event) -> httpx2.Response:
    """Upload a document in small pieces over some seconds."""
    content = pdf(uuid4().hex)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="slow.pdf"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for start in range(0, len(content), len(content) // 10):
            yield content[start : start + len(content) // 10]
            time.sleep(seconds / 10)
            under_way.set()
        yield b"\r\n--x--\r\n"

    return user.http.post("/documents", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})


@pytest.mark.long
def test_a_rolling_restart_under_load_loses_nothing(tmp_path: Path) -> None:
    """SIGHUP replaces the workers one by one. Clients keep their connections, and never retry."""
    stop = threading.Event()

    def work(user: User) -> list[str]:
        accepted = []
        while not stop.is_set():
            params = {"seconds": 0.2}
            accepted.append(user.start(user.upload()["id"], params=params)["id"])
            time.sleep(PAUSE)
        return accepted

    settings = {"WORKERS": "2", "DRAIN_SECONDS": "0.1"}
    with ThreadPoolExecutor() as threads, Server(tmp_path / "var", settings) as server:
        user = server.register()
        load = [threads.submit(work, user.at(server)) for _ in range(4)]
        server.signal(signal.SIGHUP)
        until(lambda: len(server.logs("server.stopped")) == 2, timeout=60)
        stop.set()
        accepted = [job_id for each in load for job_id in each.result(30)]
        ends = [user.finished(job_id) for job_id in accepted]
        assert Counter((end["state"], end["attempt"]) for end in ends) == {("SUCCEEDED", 1): len(accepted)}
    ledger = Ledger(tmp_path / "var")
    ledger.check()
    workers = {row.actor for row in ledger.rows(select(events).where(events.c.event == "job.started"))}
    assert len(workers) > 2, "both the old and the new ones were at work"


class Balancer:
    """The plainest there is: asks for /readyz now and then, hands requests to who is ready, and never retries."""

    def __init__(self, servers: list[Server], interval: float, failures: int) -> None:
        self._failed = dict.fromkeys((server.port for server in servers), 0)
        self._failures = failures
        self._turn = count()
        self._interval = interval
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._check)
        self.thread.start()

    def next(self) -> int:
        """The port of the server whose turn it is."""
        ready = [port for port, failed in self._failed.items() if failed < self._failures]
        return ready[next(self._turn) % len(ready)]

    def _check(self) -> None:
        with httpx2.Client(timeout=1) as http:
            while not self.closed.wait(self._interval):
                for port in self._failed:
                    try:
                        ready = http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
                    except httpx2.TransportError:
                        ready = False
                    self._failed[port] = 0 if ready else self._failed[port] + 1


@pytest.mark.long
def test_a_plain_balancer_loses_no_request_of_a_rolling_restart(tmp_path: Path) -> None:
    """Each request has a connection of its own. SHUTDOWN_DELAY_SECONDS is what the balancer takes to notice."""
    interval, failures = 0.5, 2
    settings = {"SHUTDOWN_DELAY_SECONDS": str(interval * failures + 2), "DRAIN_SECONDS": "0.1"}
    answers: Counter[int | str] = Counter()
    with pair(tmp_path / "var", **settings) as servers:
        user = servers[0].register()
        balancer = Balancer(list(servers), interval, failures)

        def work() -> None:
            document_id = user.upload()["id"]
            while not balancer.closed.is_set():
                headers = {"Authorization": user.http.headers["Authorization"]}
                try:
                    url = f"http://127.0.0.1:{balancer.next()}/documents/{document_id}"
                    answers[httpx2.patch(url, json={"folder": "f"}, headers=headers, timeout=60).status_code] += 1
                except httpx2.TransportError as error:
                    answers[repr(error)] += 1
                time.sleep(PAUSE)

        with ThreadPoolExecutor() as threads:
            load = [threads.submit(work) for _ in range(2)]
            try:
                for server in servers:
                    asked_at = time.monotonic()
                    assert server.stop() == 0
                    assert time.monotonic() - asked_at > interval * failures + 2
                    server.start()
                    time.sleep(2 * interval)  # a balancer has to see that, too
            finally:
                balancer.closed.set()
                balancer.thread.join()
            for each in load:
                each.result(10)
    assert answers.keys() == {200}, answers
    assert answers[200] > 100


def test_a_second_signal_ends_the_delay(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"SHUTDOWN_DELAY_SECONDS": "30"}) as server:
        user = server.register()
        _, job_id = user.begin(seconds=20)
        with ThreadPoolExecutor() as threads:
            poll = threads.submit(user.at(server).http.get, f"/jobs/{job_id}?wait=2")
            asked_at = time.monotonic()
            server.signal(signal.SIGTERM)
            until(lambda: user.http.get("/readyz").status_code == 503, timeout=3)
            assert poll.result(5).status_code == 200
            assert time.monotonic() - asked_at > 1.5, "served as usual: it was waited for the job"
        server.signal(signal.SIGINT)
        assert server.process is not None
        assert server.process.wait(10) == 0
        assert time.monotonic() - asked_at < 15


# Seconds after a process has begun; it takes about one to be ready.
MOMENTS = [n / 10 for n in range(0, 16, 1 if LONG else 2)]
FIRST_PROCESS = ["unshare", "--pid", "--fork", "--kill-child"]
SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
ENTRYPOINT = json.loads(re.search("^ENTRYPOINT (.*)$", Path("Dockerfile").read_text(), re.MULTILINE)[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="NOT RUN: there is no /proc")
@pytest.mark.parametrize(
    ("prefix", "workers"),
    [
        pytest.param([], "1", id="a process"),
        pytest.param([], "2", id="a process with workers", marks=pytest.mark.long),
        pytest.param([*FIRST_PROCESS, *ENTRYPOINT], "1", id="the first of a container", marks=pytest.mark.long),
        pytest.param([*FIRST_PROCESS, *ENTRYPOINT], "2", id="the first of a container, with workers"),
    ],
)
def test_a_signal_at_any_moment_of_a_start_is_a_clean_end(prefix: list[str], workers: str, tmp_path: Path) -> None:
    if prefix and subprocess.run([*FIRST_PROCESS, "true"], check=False, capture_output=True).returncode:
        pytest.skip("NOT RUN: no process may have a namespace of its own here")
    Server(tmp_path / "var").start().stop()  # the database has been migrated, and all modules compiled

    def stopped(moment: float) -> tuple[int, bool]:
        """The exit code, and whether it came at once."""
        server = Server(tmp_path / "var", {"WORKERS": workers, "DRAIN_SECONDS": "0"}, prefix=prefix or ["env"])
        process = server.launch()
        begun = until(lambda: next((pid for pid in descendants(process.pid) if heeds_sigterm(pid)), None))
        time.sleep(moment)
        asked_at = time.monotonic()
        os.kill(begun, signal.SIGTERM)
        return process.wait(20), time.monotonic() - asked_at < 5

    with ThreadPoolExecutor(2) as threads:
        assert dict(zip(MOMENTS, threads.map(stopped, MOMENTS), strict=True)) == dict.fromkeys(MOMENTS, (0, True))


def descendants(pid: int) -> Iterator[int]:
    """The process and its children, and theirs."""
    yield pid
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from descendants(int(child))


def heeds_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it, or has it held back until there is one."""
    with suppress(FileNotFoundError, ProcessLookupError):
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        heeded = int(status["SigBlk"], 16) | int(status["SigCgt"], 16)
        return bool(heeded & SIGTERM_BIT) and "unshare" not in status["Name"]
    return False
