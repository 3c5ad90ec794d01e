"""API keys at two server processes: rotated and revoked while programs use them, and what is left at a shutdown."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import select

from app.auth.models import api_keys
from tests.support.invariants import Ledger
from tests.support.server import Server, pair
from tests.support.user import User

PROGRAMS = 6
OVERLAP = 2  # seconds


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with pair(tmp_path_factory.mktemp("keys") / "var", RATE_LIMIT="0") as servers:
        yield servers


@pytest.fixture
def user(both: tuple[Server, Server]) -> User:
    return both[0].register()


def make(user: User, *scopes: str) -> Any:
    answer = user.http.post("/api-keys", json={"name": "a program", "scopes": scopes})
    assert answer.status_code == 201, answer.text
    return answer.json()


class Answer(NamedTuple):
    """To a request with a key that was sent and answered at these times."""

    key: str
    sent_at: float
    at: float
    status: int


class Programs:
    """Programs that use keys at both servers until they are stopped."""

    def __init__(self, servers: tuple[Server, Server], *keys: str) -> None:
        self.answers: list[Answer] = []
        self._servers, self._keys = servers, keys
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(PROGRAMS)
        self._running = [self._threads.submit(self._use, number) for number in range(PROGRAMS)]

    def stop(self) -> None:
        self._stopped.set()
        for each in self._running:
            each.result()
        self._threads.shutdown()

    def of(self, key: str) -> list[Answer]:
        return [each for each in self.answers if each.key == key]

    def also(self, key: str) -> None:
        self._keys = (*self._keys, key)

    def _use(self, number: int) -> None:
        with httpx2.Client(base_url=self._servers[number % 2].url, timeout=60) as http:
            while not self._stopped.wait(0.005):
                for key in self._keys:
                    sent_at = time.time()
                    status = http.get("/documents", headers={"X-API-Key": key}).status_code
                    self.answers.append(Answer(key, sent_at, time.time(), status))


@pytest.mark.long
def test_a_rotation_under_load_fails_nobody_and_the_old_one_dies_at_its_end(
    both: tuple[Server, Server], user: User
) -> None:
    made = make(user, "documents:read")
    programs = Programs(both, made["key"])
    time.sleep(0.3)
    rotated = user.http.post(f"/api-keys/{made['id']}/rotate", json={"previous_valid_for": OVERLAP}).json()
    programs.also(rotated["key"])
    dies_at = datetime.fromisoformat(rotated["previous_valid_until"]).timestamp()
    time.sleep(max(0, dies_at - time.time()) + 0.5)
    programs.stop()
    old, new = (programs.of(key) for key in (made["key"], rotated["key"]))
    assert {each.status for each in new} == {200}
    assert {each.status for each in old if each.at < dies_at} == {200}
    assert {each.status for each in old if each.sent_at >= dies_at} == {401}


def test_nothing_is_answered_after_a_key_was_revoked(both: tuple[Server, Server], user: User) -> None:
    """At either server, from the moment on at which its owner knows."""
    made, other = make(user, "documents:read"), make(user, "documents:read")
    programs = Programs(both, made["key"], other["key"])
    time.sleep(0.2)
    assert user.http.delete(f"/api-keys/{made['id']}").status_code == 204
    revoked_at = time.time()
    time.sleep(0.2)
    programs.stop()
    assert {each.status for each in programs.of(made["key"]) if each.sent_at > revoked_at} == {401}
    assert {each.status for each in programs.of(other["key"])} == {200}


def test_of_many_rotations_at_once_one_is_done(both: tuple[Server, Server], user: User) -> None:
    made = make(user, "documents:read")
    gate = threading.Barrier(8)

    def rotate(server: Server) -> httpx2.Response:
        http = user.at(server).http
        gate.wait()
        return http.post(f"/api-keys/{made['id']}/rotate")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(rotate, both * 4))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    [rotated] = [answer.json()["key"] for answer in answers if answer.is_success]
    for key in (made["key"], rotated):
        assert httpx2.get(f"{both[1].url}/documents", headers={"X-API-Key": key}, timeout=60).status_code == 200


def test_what_was_used_is_stored_when_the_server_stops_and_no_secret_is_logged(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LOG_LEVEL": "DEBUG"}) as server:
        user = server.register()
        made = make(user, "documents:read")
        for headers in ({"X-API-Key": made["key"]}, {"Authorization": f"Bearer {made['key']}"}):
            assert httpx2.get(f"{server.url}/documents", headers=headers, timeout=60).status_code == 200
            assert httpx2.post(f"{server.url}/documents", headers=headers, timeout=60).status_code == 403
        rotated = user.http.post(f"/api-keys/{made['id']}/rotate").json()
        assert server.stop() == 0
        log = server.log_file.read_text()
        used = [line for line in server.logs("http.request") if line.get("key_id") == made["id"]]
    assert [key for key in (made["key"], rotated["key"]) if key in log or key[12:] in log] == []
    assert len(used) >= 4, "who asked is logged by the key's id"
    [row] = Ledger(tmp_path / "var").rows(select(api_keys).where(api_keys.c.id == UUID(made["id"])))
    assert (row.last_used_at is not None, row.last_used_ip) == (True, "127.0.0.1")
