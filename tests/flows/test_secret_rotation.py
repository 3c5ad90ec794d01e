"""Secrets are replaced in rolling restarts of two servers, while clients log in, refresh, upload, process and are told
by webhooks. No request is refused meanwhile."""

import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.zygote import run

OLD, NEW = "o" * 40, "n" * 40
OLD_KEY, NEW_KEY = (urlsafe_b64encode(byte * 32).decode() for byte in (b"o", b"n"))
# All know the new one before any uses it. The old one goes when nothing that it has signed, or encrypted, is left.
STEPS = [
    {"JWT_SECRET": f"{OLD},{NEW}", "ENCRYPTION_KEYS": f"{OLD_KEY},{NEW_KEY}"},
    {"JWT_SECRET": f"{NEW}\n{OLD}", "ENCRYPTION_KEYS": f"{NEW_KEY},{OLD_KEY}"},
    {"JWT_SECRET": NEW, "ENCRYPTION_KEYS": NEW_KEY},
]
TTL = 4.0  # seconds of an access token


class Client(threading.Thread):
    """Asks each of two servers in turn, with what the other one may have issued. Who gets no answer asks the next."""

    def __init__(self, servers: list[Server], user: User) -> None:
        super().__init__(daemon=True)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.stopped = threading.Event()
        self._servers, self._user = cycle(servers), user
        self._token = ""

    def run(self) -> None:
        while not self.stopped.is_set():
            account = {"email": self._user.email, "password": PASSWORD}
            refresh_token = self._ask("POST", "/auth/login", json=account)["refresh_token"]
            self._work()
            self._ask("POST", "/auth/refresh", json={"refresh_token": refresh_token})
            self._work()

    def _work(self) -> None:
        for _ in range(5):
            self._ask("GET", "/auth/me")
            time.sleep(0.02)
        file = ("a.pdf", pdf(uuid4().hex), PDF_TYPE)
        document_id = self._ask("POST", "/documents", files={"file": file})["id"]
        self._ask("POST", f"/documents/{document_id}/process", json={"params": {"seconds": 0}})

    def _ask(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": uuid4().hex} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        for server in self._servers:
            try:
                with httpx2.Client(base_url=server.url, timeout=30) as http:
                    answer = http.request(method, path, headers=headers, **sent)
            except httpx2.TransportError:
                continue  # it is being replaced
            self.answers[path.partition("/documents/")[1] or path, answer.status_code] += 1
            assert answer.is_success, answer.text
            body: dict[str, Any] = answer.json()
            self._token = body.get("access_token", self._token)
            return body
        raise AssertionError


def understand_each_other(first: Server, second: Server, user: User) -> bool:
    """Whether each of the two takes what the other one issues."""
    issued = ((server.log_in(user.email), other) for server, other in ((first, second), (second, first)))
    return all(user.at(other).http.get("/auth/me").status_code == 200 for user, other in issued)


@pytest.mark.long
def test_secrets_are_replaced_without_a_refused_request(tmp_path: Path) -> None:
    limits = {"RATE_LIMIT": "0", "RATE_LIMIT_ANONYMOUS": "0"}
    settings = {"JWT_SECRET": OLD, "ENCRYPTION_KEYS": OLD_KEY, "ACCESS_TOKEN_TTL": str(TTL), **limits}
    with (
        receiving() as receiver,
        Server(tmp_path / "var", settings) as first,
        Server(tmp_path / "var", dict(settings)) as second,
    ):
        user = first.register()
        receiver.told_of(user)
        content = pdf("announced before")
        announced = announce(user, content)
        client = Client([first, second], user)
        client.start()
        for number, step in enumerate(STEPS):
            for server in (first, second):
                assert server.stop() == 0
                server.settings |= step
                server.start()
                assert understand_each_other(first, second, user)
            if number == 1:
                rotated = run("rotate-secrets", **server.environment)
                assert rotated.stdout == "All secrets are encrypted with the newest key. Of them, 1 were not before.\n"
                path = announced["upload_url"].removeprefix(announced["upload_url"].partition("/uploads/")[0])
                assert put(announced, content, second.url + path) == 200, "the old secret has signed it"
                assert complete(second.log_in(user.email), announced).status_code == 200
                time.sleep(TTL)
        assert client.is_alive(), client.answers
        client.stopped.set()
        client.join(30)
        ledger = Ledger(tmp_path / "var")
        ledger.settle()
        ledger.check_deliveries(receiver)
    assert {status for _, status in client.answers} == {200, 201, 202}
    assert client.answers["/auth/refresh", 200] >= len(STEPS)
    ledger.check()


def test_a_secret_alone_refuses_what_another_has_signed(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JWT_SECRET": OLD}) as server:
        user = server.register()
        server.stop()
        user = server.restarted(user, JWT_SECRET=STEPS[1]["JWT_SECRET"])
        assert user.http.get("/auth/me").status_code == 200
        server.stop()
        user = server.restarted(user, JWT_SECRET=NEW)
        assert user.http.get("/auth/me").json()["code"] == "invalid-token"
        refreshed = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]})
        assert refreshed.status_code == 200
