"""Servers that accept and workers that run: one database, one broker, and whatever happens to them."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path

import pytest
from sqlalchemy import select

from app.events import events
from app.jobs.models import jobs
from app.processing.models import results
from tests.flows.test_chaos import CLIENTS, LEASE, SETTINGS, Client, fork, torment
from tests.support.brokers import Queue
from tests.support.invariants import Ledger
from tests.support.receiver import receiving
from tests.support.server import Server, Worker, until
from tests.support.torture import LONG
from tests.support.zygote import Forked

JOBS = 300 if LONG else 36

pytestmark = pytest.mark.postgresql

Start = Callable[..., Server]


@pytest.fixture
def start(queue: Queue, tmp_path: Path) -> Iterator[Start]:
    """Start a process that shares database, files and broker with the others: a Server or a Worker."""
    with ExitStack() as stack:
        yield lambda kind, **settings: stack.enter_context(kind(tmp_path / "var", queue.settings | settings))


def alarm(server: Server) -> str:
    answer = server.client().get("/readyz")
    assert answer.status_code == 200
    text: str = answer.json()["alarms"].get("broker", "")
    return text


def test_servers_accept_and_workers_run(start: Start, tmp_path: Path) -> None:
    server = start(Server)
    user = server.register()
    waiting = user.start(user.upload()["id"])["id"]
    time.sleep(1)
    assert user.job(waiting)["state"] == "QUEUED", "a server runs no jobs where there is a broker"
    workers = [start(Worker, JOB_CONCURRENCY="1") for _ in range(2)]
    job_ids = [waiting, *(user.start(user.upload()["id"], params={"seconds": 0.3})["id"] for _ in range(8))]
    assert {user.finished(job_id)["state"] for job_id in job_ids} == {"SUCCEEDED"}
    ledger = Ledger(tmp_path / "var")
    ledger.check()
    ran = Counter(row.actor.rpartition(":")[2] for row in ledger.rows(select(events)) if row.event == "job.started")
    assert set(ran) == {str(worker.pid) for worker in workers}, "both were at work, and nobody else"
    assert sum(ran.values()) == len(job_ids)


def test_workers_need_no_broker(tmp_path: Path) -> None:
    """A server that only accepts, and workers that look into the database: each job begins within two seconds."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "var", {"JOB_CONCURRENCY": "0"}))
        workers = [stack.enter_context(Worker(tmp_path / "var", {"JOB_CONCURRENCY": "2"})) for _ in range(2)]
        user = server.register()
        for _ in range(5):
            document_id = user.upload()["id"]
            job_id = user.start(document_id)["id"]
            accepted_at = time.monotonic()
            until(lambda of=document_id: "started" in user.story(of), timeout=5)
            assert time.monotonic() - accepted_at < 2
            assert user.finished(job_id)["state"] == "SUCCEEDED"
        ledger = Ledger(tmp_path / "var")
        ledger.check()
        actors = {row.actor for row in ledger.rows(select(events)) if row.event == "job.started"}
        assert {actor.rpartition(":")[2] for actor in actors} <= {str(worker.pid) for worker in workers}


# How each broker goes and comes is told by the contracts; what servers and workers do meanwhile is the same.
@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
def test_the_broker_is_away_and_comes_back(start: Start, queue: Queue, tmp_path: Path) -> None:
    server, worker = start(Server, LEASE_SECONDS="1"), start(Worker, LEASE_SECONDS="1")
    user = server.register()
    assert (alarm(server), alarm(worker)) == ("", "")
    queue.relay.cut()
    asked_at = time.monotonic()
    job_ids = [user.start(user.upload()["id"])["id"] for _ in range(20)]
    assert time.monotonic() - asked_at < 10
    assert {user.finished(job_id)["state"] for job_id in job_ids} == {"SUCCEEDED"}, "the workers look once a second"
    until(lambda: alarm(server).startswith("away: ") and alarm(worker).startswith("away: "), timeout=30)
    assert len(server.logs("broker.away")) == 1, "once, not for every wake-up"
    queue.relay.mend()
    until(lambda: (alarm(server), alarm(worker)) == ("", ""), timeout=30)
    job_id = user.start(user.upload()["id"])["id"]
    assert user.finished(job_id)["state"] == "SUCCEEDED"
    Ledger(tmp_path / "var").check()


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
def test_nobody_waits_for_a_broker_at_the_start(start: Start, queue: Queue) -> None:
    queue.relay.cut()
    server, worker = start(Server, LEASE_SECONDS="1"), start(Worker, LEASE_SECONDS="1")
    user = server.register()
    assert user.finished(user.start(user.upload()["id"])["id"])["state"] == "SUCCEEDED"
    asked_at = time.monotonic()
    assert (server.stop(), worker.stop()) == (0, 0)
    assert time.monotonic() - asked_at < 10


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
def test_a_worker_drains_on_sigterm(start: Start, tmp_path: Path) -> None:
    # Under the long default lease: nobody has to wait for it to run out.
    server, stopping = start(Server), start(Worker, DRAIN_SECONDS="2")
    user = server.register()
    _, short = user.begin(seconds=1)
    document_id, long = user.begin(seconds=6)
    start(Worker)
    health = stopping.client()
    stopping.signal(signal.SIGTERM)
    draining = until(lambda: (answer := health.get("/readyz")).status_code == 503 and answer, timeout=2)
    assert draining.json()["checks"]["shutdown"] == "draining"
    assert stopping.process is not None
    assert stopping.process.wait(10) == 0
    for job_id in (short, long):
        finished = user.finished(job_id)
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)
    assert user.story(document_id) == ["queued", "started", "released", "started", "succeeded"]
    Ledger(tmp_path / "var").check()


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_without_a_port(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    server = start(Server)
    log = tmp_path / "worker.log"
    worker = Forked(["worker", "--concurrency", "2"], server.environment, log)
    user = server.register()
    assert user.finished(user.start(user.upload()["id"])["id"])["state"] == "SUCCEEDED"
    worker.send_signal(number)
    assert worker.wait(10) == 0
    assert "server.stopped" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
def test_only_who_serves_and_works_asks_the_broker(queue: Queue, tmp_path: Path) -> None:
    wrong = queue.url.replace("amqp://", "amqp://nobody:s3cret@").replace("s3cret@guest:guest@", "s3cret@")
    environment = Server(tmp_path / "var", {"BROKER_URL": wrong}).environment

    def run(*arguments: str) -> tuple[int, str]:
        log = tmp_path / f"{arguments[0]}.log"
        return Forked([*arguments], environment, log).wait(), log.read_text()

    assert run("migrate") == (0, "The database is up to date.\n")
    assert run("users", "list") == (0, "")
    code, told = run("sweep")
    assert (code, told.splitlines()[-1]) == (0, "Everything is swept."), told
    for command in ("serve", "worker"):
        assert run(command) == (1, "configuration: BROKER_URL: the server refuses these credentials\n")


@pytest.mark.parametrize("seed", range(3 if LONG else 1))
def test_nothing_is_lost_or_doubled(
    seed: int, start: Start, queue: Queue, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two servers and two workers are killed, frozen and stopped at random, the broker goes and comes, and half of the
    users are told of everything by webhooks."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    servers, workers = [[start(kind, **SETTINGS) for _ in range(2)] for kind in (Server, Worker)]
    with receiving() as receiver, ThreadPoolExecutor(CLIENTS + 5) as threads:
        users = [servers[0].register() for _ in range(CLIENTS)]
        for user in users[::2]:
            receiver.told_of(user)
        clients = [Client(user, servers, fork(chance)) for user in users]
        sending = [threads.submit(client.send, JOBS // CLIENTS) for client in clients]

        def all_sent() -> bool:
            return all(each.done() for each in sending)

        harmed = [threads.submit(torment, each, fork(chance), all_sent) for each in [*servers, *workers]]
        cut = threads.submit(cut_now_and_then, queue, fork(chance), all_sent)
        for each in sending:
            each.result(180)
        faults = sum(each.result(60) for each in harmed)
        cuts = cut.result(60)
        harmed_until = time.monotonic()
        ledger = Ledger(tmp_path / "var")
        ledger.settle(60)
        recovery = time.monotonic() - harmed_until
        for client in clients:
            client.replay()
    ledger.check()
    repeated = ledger.check_deliveries(receiver)
    ledger.check_trail()
    accepted = set().union(*map(attrgetter("job_ids"), clients))
    assert len(accepted) == JOBS
    assert accepted == {str(row.job_id) for row in ledger.rows(select(results))}
    assert accepted == {str(row.id) for row in ledger.rows(select(jobs))}
    record_property(
        f"workers and {queue.kind}",
        f"seed {seed}: {JOBS} jobs, {faults} faults, {cuts} times without the broker; "
        f"{len(receiver.ids)} messages delivered, {repeated} of them more than once; "
        f"all settled {recovery:.1f} s after the last fault",
    )


def cut_now_and_then(queue: Queue, chance: random.Random, done: Callable[[], bool]) -> int:
    """Take the broker away again and again, each time for a while. Returns how often."""
    cuts = 0
    while not done():
        time.sleep(chance.uniform(1, 3))
        queue.relay.cut()
        time.sleep(chance.uniform(0, 2 * LEASE))
        queue.relay.mend()
        cuts += 1
    return cuts
