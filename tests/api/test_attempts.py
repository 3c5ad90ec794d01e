"""Failed logins slow down the next ones, exactly, and keep nobody else out."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.server import Server
from tests.support.user import PASSWORD
from tests.support.waiting import until

WRONG = "not the password at all"


@pytest.fixture(scope="module")
def guessed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: failures count against the address of whoever tests."""
    with Server(tmp_path_factory.mktemp("guessed") / "var") as server:
        yield server


def login(server: Server, email: str, password: str, address: str) -> httpx2.Response:
    with httpx2.Client(
        base_url=server.url, transport=httpx2.HTTPTransport(local_address=address), timeout=60
    ) as client:
        return client.post("/auth/login", json={"email": email, "password": password})


def codes(answers: list[httpx2.Response]) -> list[str]:
    return [answer.json().get("code", "in") for answer in answers]


@pytest.mark.parametrize("known", [True, False])
def test_the_sixth_failure_costs_a_pause_and_each_later_one_twice_as_much(guessed: Server, known: bool) -> None:  # noqa: FBT001
    """The same for an account that does not exist."""
    user, address = guessed.register(), f"127.0.1.{1 + known}"
    email = user.email if known else f"nobody-{user.email}"
    wrong = [login(guessed, email, WRONG, address) for _ in range(6)]
    assert codes(wrong) == ["invalid-credentials"] * 6
    refused = login(guessed, email, PASSWORD, address)
    assert (refused.status_code, refused.json()["code"]) == (429, "login-throttled")
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    time.sleep(int(refused.headers["retry-after"]))
    assert codes([login(guessed, email, WRONG, address)]) == ["invalid-credentials"]
    assert int(login(guessed, email, WRONG, address).headers["retry-after"]) in {4, 5}


def test_somebody_who_guesses_does_not_lock_out_the_user(guessed: Server) -> None:
    user = guessed.register()
    assert codes([login(guessed, user.email, WRONG, "127.0.1.3") for _ in range(8)])[-1] == "login-throttled"
    assert login(guessed, user.email, PASSWORD, "127.0.1.4").status_code == 200
    refreshed = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]})
    assert refreshed.status_code == 200


def test_a_success_forgets_the_failures(guessed: Server) -> None:
    user = guessed.register()
    for _ in range(3):
        assert codes([login(guessed, user.email, WRONG, "127.0.1.5") for _ in range(5)]) == ["invalid-credentials"] * 5
        assert login(guessed, user.email, PASSWORD, "127.0.1.5").status_code == 200


def test_however_many_guess_at_once_no_more_are_told(guessed: Server) -> None:
    """The right one is among them."""
    user = guessed.register()
    guesses = [WRONG] * 23 + [PASSWORD] + [WRONG] * 6
    began = time.monotonic()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda each: login(guessed, user.email, each, "127.0.1.6"), guesses))
    took = time.monotonic() - began
    pauses = sum(took > end for end in (2, 6, 14))  # that have ended meanwhile, on a busy machine
    assert codes(answers).count("invalid-credentials") <= (6 + pauses) * (1 + codes(answers).count("in"))
    assert set(codes(answers)) <= {"in", "invalid-credentials", "login-throttled", "too-busy"}


@pytest.mark.long
def test_an_address_may_fail_a_hundred_times_whatever_the_account(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"RATE_LIMIT_ANONYMOUS": "0"}) as server:
        user = server.register()
        told = [login(server, f"nobody{n}@example.com", WRONG, "127.0.1.7").json()["code"] for n in range(102)]
        assert told == ["invalid-credentials"] * 100 + ["login-throttled"] * 2
        refused = login(server, user.email, PASSWORD, "127.0.1.7")
        assert (refused.status_code, 800 < int(refused.headers["retry-after"]) <= 900) == (429, True)
        assert login(server, user.email, PASSWORD, "127.0.1.8").status_code == 200
        metrics = httpx2.get(f"{server.url}/metrics", timeout=60).text
        assert 'document_api_logins_total{outcome="throttled"} 3.0' in metrics


def test_the_current_password_is_guessed_as_slowly(guessed: Server) -> None:
    user = guessed.register()
    body = {"current_password": WRONG, "new_password": "another long password"}
    answers = [user.http.post("/auth/password", json=body) for _ in range(7)]
    assert codes(answers) == ["wrong-password"] * 6 + ["login-throttled"]


def test_who_has_left_is_not_hashed_for(guessed: Server) -> None:
    address, count = "127.0.1.9", 200
    for number in range(count):
        body = json.dumps({"email": f"gone{number}@example.com", "password": WRONG}).encode()
        head = f"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        with socket.create_connection(("127.0.0.1", guessed.port), source_address=(address, 0)) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)

    def statuses() -> Counter[int]:
        return Counter(line["status"] for line in guessed.logs("http.request") if line["client"] == address)

    until(lambda: statuses().total() == count)
    assert statuses()[401] < count / 4
    assert statuses()[499] > count / 2
