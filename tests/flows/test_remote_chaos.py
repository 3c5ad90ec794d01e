"""Two workers elsewhere and two here share the work of two servers. All are killed, frozen and started again."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.database import now
from app.documents.models import documents
from app.events import events
from app.jobs.models import jobs
from app.processing.models import results
from tests.flows.test_chaos import CHILDREN, LEASE, SETTINGS, Client, fork, torment
from tests.support import cutter, databases
from tests.support.elsewhere import STATED, described
from tests.support.invariants import Ledger
from tests.support.server import Server, Worker
from tests.support.zygote import Forked

CLIENTS = 4


class Sender(Client):
    """Somebody who has documents taken apart, here or elsewhere."""

    def wanted(self, chance: random.Random) -> dict[str, Any]:
        time.sleep(chance.uniform(0, 0.6))
        if chance.random() < 0.5:
            return {"processor": "cut", "params": {}}
        return {"processor": "maker", "params": {"seconds": chance.uniform(0, 0.8), "documents": CHILDREN}}


class Elsewhere:
    """A worker elsewhere, which can be harmed."""

    def __init__(self, name: str, server: Server, key: str) -> None:
        self.name = name
        self._server = server
        self._arguments = [server.url, key, name]
        self.start()

    def start(self) -> None:
        log = self._server.data_dir.parent / f"{self.name}.log"
        self.process = Forked(self._arguments, {}, log, module=cutter.__name__)

    def torment(self, chance: random.Random, done: Callable[[], bool]) -> int:
        """Kill it, or freeze it until it has lost its job. Returns how often."""
        faults = 0
        while not done():
            faults += 1
            time.sleep(chance.uniform(0.5, 1.5))
            if chance.random() < 0.5:
                self.process.send_signal(signal.SIGSTOP)
                self.lose()
                time.sleep(LEASE * 1.5)
                self.process.send_signal(signal.SIGCONT)
            else:
                self.process.kill()
                self.process.wait()
                self.lose()
                self.start()
        return faults

    def lose(self) -> None:
        """Have the lease of its job end, which lasts for long."""
        held = update(jobs).where(jobs.c.locked_by == f"remote:{self.name}", jobs.c.locked_until.is_not(None))
        with databases.engine(self._server.data_dir).begin() as conn:
            conn.execute(held.values(locked_until=now(-1)))


def watch(ledger: Ledger, done: Callable[[], bool]) -> int:
    """Look again and again how many children documents have: all, or none. Returns how often."""
    query, looks = select(func.count()).where(documents.c.parent_id.is_not(None)).group_by(documents.c.parent_id), 0
    while not done():
        assert {row[0] for row in ledger.rows(query)} <= {CHILDREN}
        looks += 1
        time.sleep(0.1)
    return looks


@pytest.mark.parametrize("sent", [3, pytest.param(60, marks=pytest.mark.long)])
def test_nothing_is_lost_or_doubled(sent: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    assert cutter.CHILDREN == CHILDREN
    chance, ledger = random.Random(sent), Ledger(tmp_path / "var")  # noqa: S311 - to be repeated, not to be secret
    settings = SETTINGS | {"REMOTE_PROCESSORS": str(described(tmp_path, {"cut": STATED["cut"]}))}
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS + 7) as threads:
        servers = [stack.enter_context(Server(tmp_path / "var", settings | {"JOB_CONCURRENCY": "0"})) for _ in range(2)]
        kind = Worker if databases.POSTGRESQL else Server  # with SQLite, servers run the jobs
        here = [stack.enter_context(kind(tmp_path / "var", settings)) for _ in range(2)]
        wanted = {"name": "workers", "scopes": ["worker"]}
        key = servers[0].operator().http.post("/api-keys", json=wanted).json()["key"]
        elsewhere = [Elsewhere(f"w{number}", server, key) for number, server in enumerate(servers)]
        for each in elsewhere:
            stack.callback(lambda each=each: each.process.kill())
        clients = [Sender(servers[0].register(), servers, fork(chance)) for _ in range(CLIENTS)]
        sending = [threads.submit(client.send, sent) for client in clients]

        def all_sent() -> bool:
            return all(each.done() for each in sending)

        harmed = [threads.submit(torment, each, fork(chance), all_sent) for each in [*servers, *here]]
        harmed += [threads.submit(each.torment, fork(chance), all_sent) for each in elsewhere]
        watched = threads.submit(watch, ledger, all_sent)
        for sender in sending:
            sender.result(180)
        faults = sum(each.result(60) for each in harmed)
        assert watched.result(60)
        ledger.settle(60 + sent)  # each worker elsewhere has as many jobs left, of a second on a busy machine
        for client in clients:
            client.replay()
    ledger.check()
    run, told = ledger.rows(select(jobs)), ledger.rows(select(events))
    accepted = set().union(*(client.job_ids for client in clients))
    assert len(accepted) == sent * CLIENTS
    published = Counter(str(row.job_id) for row in ledger.rows(select(results)))
    succeeded = Counter(str(row.job_id) for row in told if row.event == "job.succeeded")
    assert published == succeeded == Counter(accepted) == Counter(str(row.id) for row in run)
    made = Counter(row.parent_id for row in ledger.rows(select(documents)) if row.parent_id)
    assert made == dict.fromkeys((row.document_id for row in run), CHILDREN)
    workers = {row.actor for row in told if row.event == "job.started"}
    assert {"remote:w0", "remote:w1"} < workers
    record_property(
        "workers elsewhere",
        f"{len(accepted)} jobs, {faults} faults, {sum(row.fence > 1 for row in run)} jobs begun more than once",
    )
