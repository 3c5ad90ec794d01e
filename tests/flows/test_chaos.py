"""Three servers on one data folder are killed, frozen and stopped at random while 300 jobs are sent in and run.

Every client retries what got no answer, at whichever server is up, as the Idempotency-Key allows. Afterwards as many
results as jobs, each published once. The seed fixes the plan of faults and of work; how they interleave is luck.
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

from app.events import events
from app.processing.models import jobs, results
from tests.factories import pdf
from tests.invariants import Ledger
from tests.server import Server, User
from tests.torture import LONG

JOBS = 300
CLIENTS = 6
LEASE = 1.0
SETTINGS = {
    "LEASE_SECONDS": str(LEASE),
    "ORPHAN_GRACE_SECONDS": "2",
    "DRAIN_SECONDS": "0.5",
    "JOB_MAX_TRIES": "100",  # so that whatever is accepted must succeed
}
FAULTS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL]


class Client:
    """Somebody who wants documents processed, and insists."""

    def __init__(self, user: User, servers: list[Server], chance: random.Random) -> None:
        self._users = [user.at(server) for server in servers]
        self._chance = chance
        self._accepted: dict[str, tuple[dict[str, Any], httpx2.Response]] = {}

    @property
    def job_ids(self) -> set[str]:
        return {answer.json()["job"]["id"] for _, answer in self._accepted.values()}

    def send(self, jobs: int) -> None:
        for _ in range(jobs):
            key = uuid4().hex
            upload = self._insist(methodcaller("post_file", pdf(key), key=f"upload {key}"))
            params = {"seconds": self._chance.uniform(0, 0.8), "flaky": int(self._chance.random() < 0.05)}
            answer = self._insist(methodcaller("process", upload.json()["id"], key=key, params=params))
            self._accepted[key] = params, answer

    def replay(self) -> None:
        """Send every accepted request again: it gets its first answer."""
        for key, (params, answer) in self._accepted.items():
            again = self._insist(methodcaller("process", answer.json()["document"]["id"], key=key, params=params))
            assert (again.status_code, again.content) == (202, answer.content)

    def _insist(self, call: Callable[[User], httpx2.Response]) -> httpx2.Response:
        """Ask any server until one accepts. A retry may be told that the first try is still under way."""
        while True:
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


def torment(server: Server, chance: random.Random) -> None:
    """Harm the server again and again; each time it may serve on."""
    for fault in chance.sample(FAULTS, len(FAULTS)):
        time.sleep(chance.uniform(0, 1))
        server.signal(fault)
        if fault == signal.SIGSTOP:
            time.sleep(LEASE * 1.5)
            server.signal(signal.SIGCONT)
        else:
            assert server.process is not None
            assert server.process.wait(30) == (0 if fault == signal.SIGTERM else -fault)
            server.start()


@pytest.mark.parametrize("seed", range(10 if LONG else 1))
def test_nothing_is_lost_or_doubled(seed: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    ledger = Ledger(tmp_path / "var")
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        servers = [stack.enter_context(Server(tmp_path / "var", SETTINGS)) for _ in range(3)]
        clients = [Client(servers[0].register(), servers, fork(chance)) for _ in range(CLIENTS)]
        sending = [threads.submit(client.send, JOBS // CLIENTS) for client in clients]
        for each in [threads.submit(torment, server, fork(chance)) for server in servers]:
            each.result(120)
        harmed_until = time.monotonic()
        for each in sending:
            each.result(120)
        ledger.settle()
        recovery = time.monotonic() - harmed_until
        for client in clients:
            client.replay()
    ledger.check()
    run = ledger.rows(select(jobs))
    published = [str(row.job_id) for row in ledger.rows(select(results))]
    accepted = set().union(*(client.job_ids for client in clients))
    assert len(accepted) == JOBS
    assert Counter(published) == Counter(accepted) == Counter(str(row.id) for row in run)
    rerun = sum(row.fence > 1 for row in run)
    told = Counter(row.event for row in ledger.rows(select(events)))
    assert rerun
    record_property(
        "chaos",
        f"seed {seed}: {JOBS} jobs, {len(servers) * len(FAULTS)} faults, {len(published)} results; "
        f"{rerun} jobs ran more than once, {told['job.lease_lost']} leases lost, "
        f"{told['job.fenced']} stale outcomes refused; "
        f"all settled {recovery:.1f} s after the last fault",
    )


def fork(chance: random.Random) -> random.Random:
    return random.Random(chance.random())  # noqa: S311
