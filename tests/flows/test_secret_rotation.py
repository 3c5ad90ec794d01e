"""JWT_SECRET is replaced in rolling restarts of two servers, and no request is refused meanwhile."""

import threading
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import PASSWORD, User

OLD, NEW = "o" * 40, "n" * 40
STEPS = (f"{OLD},{NEW}", f"{NEW}\n{OLD}", NEW)


class Client(threading.Thread):
    """Asks each of two servers in turn, with a token that the other one may have issued."""

    def __init__(self, servers: list[Server], user: User) -> None:
        super().__init__(daemon=True)
        self.servers, self.user = servers, user
        self.answers: Counter[int] = Counter()
        self.stopped = threading.Event()

    def run(self) -> None:
        token = self.user.tokens["access_token"]
        for turn in range(10**6):
            if self.stopped.wait(0.02):
                return
            for server in self.servers:
                try:
                    with server.client() as http:
                        if turn % 20 == 0:
                            account = {"email": self.user.email, "password": PASSWORD}
                            token = http.post("/auth/login", json=account).json()["access_token"]
                        answer = http.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
                except httpx2.TransportError:
                    continue  # it is being replaced
                self.answers[answer.status_code] += 1


def understand_each_other(first: Server, second: Server, user: User) -> bool:
    """Whether each of the two takes what the other one issues."""
    issued = ((server.log_in(user.email), other) for server, other in ((first, second), (second, first)))
    return all(user.at(other).http.get("/auth/me").status_code == 200 for user, other in issued)


def test_secrets_are_replaced_without_a_refused_request(tmp_path: Path) -> None:
    shared = {"JWT_SECRET": OLD, "RATE_LIMIT": "0", "RATE_LIMIT_ANONYMOUS": "0"}
    with Server(tmp_path / "var", shared) as first, Server(tmp_path / "var", dict(shared)) as second:
        user = first.register()
        content = pdf("announced before")
        announced = announce(user, content)
        client = Client([first, second], user)
        client.start()
        for step in STEPS[:2]:
            for server in (first, second):
                assert server.stop() == 0
                server.settings["JWT_SECRET"] = step
                server.start()
                assert understand_each_other(first, second, user)
        path = announced["upload_url"].removeprefix(announced["upload_url"].partition("/uploads/")[0])
        assert put(announced, content, second.url + path) == 200, "the old secret has signed it"
        assert complete(user.at(second), announced).status_code == 200
        client.stopped.set()
        client.join(30)
    assert client.answers[200] > 30
    assert set(client.answers) == {200}


def test_a_secret_alone_refuses_what_another_has_signed(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JWT_SECRET": OLD}) as server:
        user = server.register()
        server.stop()
        user = server.restarted(user, JWT_SECRET=STEPS[1])
        assert user.http.get("/auth/me").status_code == 200
        server.stop()
        user = server.restarted(user, JWT_SECRET=NEW)
        assert user.http.get("/auth/me").json()["code"] == "invalid-token"
        refreshed = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]})
        assert refreshed.status_code == 200
