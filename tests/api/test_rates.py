"""Requests are counted, by account or by the client's address, and refused beyond the limit."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.relay import Relay
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

REDIS = os.environ.get("TEST_REDIS_URL")
LIMITS = {"RATE_LIMIT": "20/hour", "RATE_LIMIT_ANONYMOUS": "30/hour"}


def fields(response: httpx2.Response) -> tuple[str, str, int, int]:
    """Policy, its quota, what remains, and the seconds until there is more."""
    policy = re.fullmatch(r'"(\w+)";q=(\d+);w=3600', response.headers["ratelimit-policy"])
    left = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert policy
    assert left
    assert policy[1] == left[1]
    return policy[1], policy[2], int(left[2]), int(left[3])


def assert_limited(response: httpx2.Response, policy: str) -> None:
    problem = response.json()
    assert (response.status_code, problem["code"], problem["violated-policies"]) == (429, "rate-limited", [policy])
    assert 3500 < int(response.headers["retry-after"]) == fields(response)[3] <= 3600
    assert fields(response)[2] == 0


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "var", LIMITS) as server:
        yield server


def test_an_account_has_its_own_count_and_the_fields_say_what_remains(limited: Server) -> None:
    user, other = limited.register(), limited.register()
    told = [fields(user.http.get("/documents")) for _ in range(20)]
    assert [(policy, quota, left) for policy, quota, left, _ in told] == [("account", "20", 19 - n) for n in range(20)]
    assert all(3500 < seconds <= 3600 for *_, seconds in told)
    assert_limited(user.http.get("/documents"), "account")
    assert_limited(user.post_file(b"%PDF-", "a.pdf"), "account")
    assert fields(other.http.get("/documents"))[2] == 19
    for path in ("/livez", "/readyz", "/metrics"):
        answer = httpx2.get(limited.url + path, timeout=60)
        assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
    assert (
        'document_api_rate_limited_total{policy="account"} 2.0' in httpx2.get(f"{limited.url}/metrics", timeout=60).text
    )


def test_a_client_without_a_token_is_counted_by_its_address(limited: Server) -> None:
    user = limited.register()
    with httpx2.Client(base_url=limited.url, timeout=60) as client:
        left = fields(client.get("/documents"))[2]
        for _ in range(left):
            assert client.get("/documents", headers={"Authorization": "Bearer x"}).status_code == 401
        assert_limited(client.get("/documents"), "address")
        assert_limited(client.post("/auth/login", json={"email": "a@example.com", "password": "x"}), "address")
    assert user.http.get("/documents").status_code == 200
    elsewhere = httpx2.HTTPTransport(local_address="127.0.0.2")
    with httpx2.Client(base_url=limited.url, transport=elsewhere, timeout=60) as client:
        assert client.get("/documents").status_code == 401


@pytest.mark.long
def test_no_limit(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"RATE_LIMIT": "0", "RATE_LIMIT_ANONYMOUS": "0"}) as server:
        assert "ratelimit" not in server.register().http.get("/documents").headers


def allowed(users: list[User], requests: int) -> int:
    """How many of so many requests, sent at once to all servers, are let in."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: users[n % len(users)].http.get("/documents"), range(requests)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers)


@pytest.mark.skipif(not REDIS, reason="TEST_REDIS_URL is not set")
def test_with_redis_the_count_is_exact_over_all_processes_and_without_it_each_counts(tmp_path: Path) -> None:
    relay = Relay(6379)
    settings = {"RATE_LIMIT": "50/hour", "LIMITS_URL": f"redis://127.0.0.1:{relay.port}/7"}
    with Server(tmp_path / "var", settings) as one, Server(tmp_path / "var", settings) as other:

        def late() -> int:
            return len(one.logs("rates.uncounted") + other.logs("rates.uncounted"))

        def both_count_there() -> bool:
            for user in (one.register(), other.register()):
                user.http.get("/documents")
            return not any(
                "limits" in httpx2.get(f"{each.url}/readyz", timeout=60).json()["alarms"] for each in (one, other)
            )

        for _ in range(10):  # on a busy machine Redis may answer too late, and is then not asked for a while
            until(both_count_there)
            before, user = late(), one.register()
            let_in = allowed([user, user.at(other)], 120)
            if late() == before:
                break
        assert let_in == 50
        relay.cut()
        assert allowed([user], 60) == allowed([user.at(other)], 60) == 50
        assert "limits" in httpx2.get(f"{one.url}/readyz", timeout=60).json()["alarms"]
        relay.mend()
        until(both_count_there)
        assert allowed([user], 1) == 0
    relay.cut()
