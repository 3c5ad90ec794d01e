"""Three servers on one data folder are killed, frozen and stopped at random while hundreds of jobs are sent in and run.

Every client retries what got no answer, at whichever server is up, as the Idempotency-Key allows. Afterwards as many
results as jobs, each published once with the documents that it made, and half of the users were told of everything by
webhooks. The seed fixes the plan of faults and of work; how they interleave is luck.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import methodcaller
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select

from app.documents.models import documents
from app.events import events
from app.jobs.models import jobs
from app.processing.models import results
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.torture import LONG
from tests.support.user import User

JOBS = 300 if LONG else 120
CLIENTS = 6
SERVERS = 3
MAKING, CHILDREN = 0.3, 2  # the share of jobs that make documents, and how many
LEASE = 1.0
SETTINGS = {
    "LEASE_SECONDS": str(LEASE),
    "ORPHAN_GRACE_SECONDS": "2",
    "DRAIN_SECONDS": "0.5",
    "PROCESSORS": f"simulated,{NAMED}",
    "JOB_MAX_TRIES": "100",  # so that whatever is accepted must succeed
}
FAULTS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]


class Client:
    """Somebody who wants documents processed, and insists."""

    def __init__(self, user: User, servers: list[Server], chance: random.Random) -> None:
        self._users = [user.at(server) for server in servers]
        self._chance = chance
        self._accepted: dict[str, tuple[dict[str, Any], httpx2.Response]] = {}

    @property
    def job_ids(self) -> set[str]:
        return {answer.json()["job"]["id"] for _, answer in [*self._accepted.values()]}  # while others are sent

    def send(self, jobs: int) -> None:
        for _ in range(jobs):
            key = uuid4().hex
            upload = self._insist(methodcaller("post_file", pdf(key), key=f"upload {key}"))
            wanted = self.wanted(self._chance)
            answer = self._insist(methodcaller("process", upload.json()["id"], key=key, **wanted))
            self._accepted[key] = wanted, answer

    def wanted(self, chance: random.Random) -> dict[str, Any]:
        """What is to be done with the next document."""
        params = {"seconds": chance.uniform(0, 0.8)}
        if chance.random() < MAKING:
            return {"processor": "maker", "params": params | {"documents": CHILDREN}}
        return {"params": params}

    def replay(self) -> None:
        """Send every accepted request again: it gets its first answer."""
        for key, (wanted, answer) in self._accepted.items():
            again = self._insist(methodcaller("process", answer.json()["document"]["id"], key=key, **wanted))
            assert (again.status_code, again.content) == (202, answer.content)

    def _insist(self, call: Callable[[User], httpx2.Response]) -> httpx2.Response:
        """Ask any server until one accepts. A retry may be told that the first try is still under way."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = call(self._chance.choice(self._users))
            except httpx2.TransportError:
                time.sleep(0.05)
                continue
            if answer.is_success:
                return answer
            assert answer.status_code in {409, 503}, answer.text
            assert "retry-after" in answer.headers
            time.sleep(0.1)
        raise AssertionError("no server accepted it within a minute")


def torment(server: Server, chance: random.Random, done: Callable[[], bool]) -> int:
    """Harm the server again and again, each time to let it serve on, until all is sent. Returns how often."""
    faults = 0
    while not done():
        fault = chance.choice(FAULTS)
        faults += 1
        time.sleep(chance.uniform(0.5, 2))
        server.signal(fault)
        if fault == signal.SIGSTOP:
            time.sleep(LEASE * 1.5)
            server.signal(signal.SIGCONT)
        else:
            assert server.process is not None
            assert server.process.wait(30) == (0 if fault == signal.SIGTERM else -fault)
            server.start()
    return faults


@pytest.mark.parametrize("seed", range(10 if LONG else 1))
def test_nothing_is_lost_or_doubled(seed: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    ledger = Ledger(tmp_path / "var")
    with ExitStack() as stack, ThreadPoolExecutor(CLIENTS + SERVERS) as threads:
        receiver = stack.enter_context(receiving())
        servers = [stack.enter_context(Server(tmp_path / "var", SETTINGS)) for _ in range(SERVERS)]
        users = [servers[0].register() for _ in range(CLIENTS)]
        for user in users[::2]:
            receiver.told_of(user)
        clients = [Client(user, servers, fork(chance)) for user in users]
        sending = [threads.submit(client.send, JOBS // CLIENTS) for client in clients]

        def all_sent() -> bool:
            return all(each.done() for each in sending)

        tormented = [threads.submit(torment, server, fork(chance), all_sent) for server in servers]
        for each in sending:
            each.result(180)
        faults = sum(each.result(60) for each in tormented)
        harmed_until = time.monotonic()
        ledger.settle()
        recovery = time.monotonic() - harmed_until
        for client in clients:
            client.replay()
    ledger.check()
    repeated = ledger.check_deliveries(receiver)
    ledger.check_trail()
    run = ledger.rows(select(jobs))
    published = [str(row.job_id) for row in ledger.rows(select(results))]
    accepted = set().union(*(client.job_ids for client in clients))
    assert len(accepted) == JOBS
    making = {row.document_id for row in run if row.args["processor"] == "maker"}
    made = Counter(row.parent_id for row in ledger.rows(select(documents)) if row.parent_id)
    assert made == dict.fromkeys(making, CHILDREN)
    assert Counter(published) == Counter(accepted) == Counter(str(row.id) for row in run)
    told = Counter(row.event for row in ledger.rows(select(events)))
    assert told["job.lease_lost"]
    rerun = sum(row.fence > 1 for row in run)
    record_property(
        "chaos",
        f"seed {seed}: {JOBS} jobs, {faults} faults, {len(published)} results; {rerun} jobs begun more than once "
        f"({told['job.lease_lost']} leases lost, {told['job.released']} released), "
        f"{told['job.fenced']} stale outcomes refused; {len(receiver.ids)} messages delivered, {repeated} of them more "
        f"than once; all settled {recovery:.1f} s after the last fault",
    )


def fork(chance: random.Random) -> random.Random:
    return random.Random(chance.random())  # noqa: S311
