"""Accounts, logins, and the life of tokens."""

import os
import sys
import time
from pathlib import Path
from random import choices
from statistics import median
from string import ascii_letters
from uuid import uuid4

import httpx2
import pytest
from jose import jwt
from sqlalchemy import update

from app.auth.models import users
from app.auth.passwords import ARGON2
from tests.support import databases
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.zygote import run

SECRET = "known to the tests that forge tokens"
MEMBER = "member@example.com"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server whose operator makes the accounts, with a known secret and short patience."""
    settings = {
        "REGISTRATION": "closed",
        "JWT_SECRET": SECRET,
        "ACCESS_TOKEN_TTL": "60",
        "REFRESH_GRACE_SECONDS": "0.2",
    }
    with Server(tmp_path_factory.mktemp("guarded") / "var", settings) as server:
        done = run("users", "create", MEMBER, "--password-stdin", stdin=PASSWORD, **server.environment)
        assert done.returncode == 0, done.stderr
        yield server


@pytest.fixture
def member(guarded):
    """A new login of the one user of the guarded server."""
    return guarded.log_in(MEMBER)


def address() -> str:
    return f"{uuid4().hex}@example.com"


def register(server: Server, email: str, password: str = PASSWORD) -> httpx2.Response:
    return server.client().post("/auth/register", json={"email": email, "password": password})


def log_in(server: Server, email: str, password: str = PASSWORD) -> httpx2.Response:
    return server.client().post("/auth/login", json={"email": email, "password": password})


def refresh(user: User, token: str) -> httpx2.Response:
    return user.http.post("/auth/refresh", json={"refresh_token": token})


def refreshed(user: User, token: str) -> str:
    """The refresh token that replaces this one."""
    answer = refresh(user, token)
    assert answer.status_code == 200, answer.text
    return answer.json()["refresh_token"]


def me(server: Server, *authorization: str) -> httpx2.Response:
    return server.client().get("/auth/me", headers=[("Authorization", each) for each in authorization])


def assert_refused(answer: httpx2.Response, code: str, challenge: str = 'Bearer error="invalid_token"') -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == challenge


def assert_invalid(answer: httpx2.Response, pointer: str) -> None:
    assert (answer.status_code, [place["pointer"] for place in answer.json()["errors"]]) == (422, [pointer])


def stable(answer: httpx2.Response) -> dict[str, object]:
    """A problem without what differs from request to request."""
    return {name: value for name, value in answer.json().items() if name not in {"request_id", "instance"}}


def test_register_log_in_and_meet_oneself(server):
    email = address()
    registered = register(server, email.upper())
    assert registered.status_code == 201
    assert registered.json().keys() == {"id", "email", "created_at"}
    assert registered.json()["email"] == email
    tokens = log_in(server, email).json()
    assert tokens.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)
    seen = me(server, f"Bearer {tokens['access_token']}").json()
    usage, quota = seen.pop("usage"), seen.pop("quota")
    assert seen == registered.json() | {"role": "user"}
    assert usage == {"bytes": 0, "documents": 0, "announced": 0, "jobs": 0}
    assert quota == {"bytes": 10 * 1024**3, "documents": 100_000, "announced": 10_000, "jobs": 10_000}
    for spelling in ("bearer", "BEARER", "Bearer "):  # RFC 9110 §11.6.2: in any case, and behind any number of spaces
        assert me(server, f"{spelling} {tokens['access_token']}").status_code == 200


@pytest.mark.parametrize("path", ["/auth/token", "/auth/login"])
def test_log_in_with_the_oauth2_form(user, path):
    form = {"grant_type": "password", "username": user.email, "password": PASSWORD, "scope": "", "client_id": "docs"}
    answer = user.http.post(path, data=form)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert me(user.server, f"Bearer {answer.json()['access_token']}").json()["email"] == user.email


def test_the_route_for_oauth2_takes_nothing_but_the_form(user):
    answer = user.http.post("/auth/token", json={"email": user.email, "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    flows = user.http.get("/openapi.json").json()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]
    assert flows["password"]["tokenUrl"] == "auth/token"


@pytest.mark.parametrize("spelling", [str, str.upper, str.title])
def test_email_is_taken_in_every_spelling(user, spelling):
    answer = register(user.server, spelling(user.email), "another password")
    assert (answer.status_code, answer.json()["code"]) == (409, "email-taken")
    assert log_in(user.server, user.email).status_code == 200


ADDRESSES = ["{}@EXAMPLE.com", "{}ü@example.com", "{}u\u0308@example.com", "{}@\uff45xample.com", "{}@bücher.example"]


@pytest.mark.parametrize("template", ADDRESSES, ids=ascii)
def test_who_registered_an_address_can_log_in_with_it(server, template):
    email = template.format(uuid4().hex)
    assert register(server, email).status_code == 201
    assert log_in(server, email).status_code == 200


@pytest.mark.parametrize(
    "email", ["", "a", "a@", "@b.de", "a b@c.de", "a\0@b.de", "a@b.de\n", "x" * 250 + "@b.de"], ids=ascii
)
def test_register_refuses_an_email(server, email):
    assert_invalid(register(server, email), "/email")


@pytest.mark.parametrize("password", ["", "seven77", "x" * 257, "with a \0 inside", "with a \n inside"], ids=ascii)
def test_register_refuses_a_password(server, password):
    assert_invalid(register(server, address(), password), "/password")


@pytest.mark.parametrize("password", ["8 chars.", "x" * 256, "pässwörd 密码 🔑"])
def test_any_fair_password_will_do(server, password):
    email = address()
    assert register(server, email, password).status_code == 201
    assert log_in(server, email, password).status_code == 200
    assert log_in(server, email, password[:-1]).status_code == 401


COMMON = ["password", "PassWord", "12345678", "trustno1", "11111111", "qwertyuiop"]
PERSONAL = ["{email}", "{local}", "{local}1!", "2024-{local}", "Document Lifecycle API", "documentlifecycleapi99"]


@pytest.mark.parametrize("password", COMMON + PERSONAL)
def test_what_others_would_try_first_is_no_password(server, password):
    local = "".join(choices(ascii_letters, k=20))  # noqa: S311 - a name
    email = f"{local}@example.com"
    answer = register(server, email, password.format(email=email, local=local))
    assert_invalid(answer, "/password")
    assert answer.json()["code"] == "weak-password"
    assert answer.json()["detail"] == answer.json()["errors"][0]["detail"]
    assert log_in(server, email, password).status_code == 401


COMPOSED, DECOMPOSED = "pässwörd 密码", "pa\u0308sswo\u0308rd 密码"


@pytest.mark.parametrize("chosen", [COMPOSED, DECOMPOSED], ids=["composed", "decomposed"])
@pytest.mark.parametrize("typed", [COMPOSED, DECOMPOSED], ids=["composed", "decomposed"])
def test_a_password_is_the_same_on_every_keyboard(server, chosen, typed):
    email = address()
    assert register(server, email, chosen).status_code == 201
    assert log_in(server, email, typed).status_code == 200


def test_a_password_of_an_earlier_release_is_the_one_that_was_sent(server):
    email = address()
    register(server, email)
    hashed = ARGON2.using(memory_cost=64).hash(DECOMPOSED)
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(update(users).where(users.c.email == email).values(password_hash=hashed))
    assert log_in(server, email, DECOMPOSED).status_code == 200
    assert log_in(server, email, PASSWORD).status_code == 401


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
@pytest.mark.usefixtures("user")
def test_requests_come_before_passwords(server):
    own = os.getpriority(os.PRIO_PROCESS, server.pid)
    threads = [int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()]
    hashing = [thread for thread in threads if os.getpriority(os.PRIO_PROCESS, thread) > own]
    assert 1 <= len(hashing) <= 4, "two threads for passwords, and two that decompress results"


def test_wrong_password_and_unknown_user_cannot_be_told_apart(user):
    def timed(email: str) -> float:
        started = time.perf_counter()
        answers.append(log_in(user.server, email, "a wrong password"))
        return time.perf_counter() - started

    answers: list[httpx2.Response] = []
    times = [(timed(user.email), timed(address())) for _ in range(5)]
    known, unknown = map(median, zip(*times, strict=True))
    assert 0.4 < known / unknown < 2.5
    assert all(stable(answer) == stable(answers[0]) for answer in answers)
    for answer in answers:
        assert_refused(answer, "invalid-credentials", "Bearer")


@pytest.mark.parametrize("authorization", [[], ["Basic YWRhOnNlY3JldA=="]], ids=["none", "another method"])
def test_without_an_access_token(server, authorization):
    # RFC 6750 §3: no error code for a client that did not know or tried another method.
    assert_refused(me(server, *authorization), "unauthorized", "Bearer")


BAD = [["Bearer"], ["Bearer nonsense"], ["Bearer {token}x"], ["Bearer {token}", "Bearer {token}"]]


@pytest.mark.parametrize("authorization", BAD, ids=", ".join)
def test_bad_access_token(user, authorization):
    sent = (each.format(token=user.tokens["access_token"]) for each in authorization)
    assert_refused(me(user.server, *sent), "invalid-token")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 200),
        ({"exp": 1}, 401),
        ({"sid": str(uuid4())}, 401),
        ({"sub": str(uuid4())}, 401),
        ({"typ": "refresh"}, 401),
        ({"aud": "x"}, 401),
    ],
    ids=["as issued", "expired", "session unknown", "user unknown", "of another type", "for another audience"],
)
def test_access_tokens_are_believed_for_what_they_claim(member, changed, status):
    claims = jwt.get_unverified_claims(member.tokens["access_token"])
    assert claims["exp"] - claims["iat"] == member.tokens["expires_in"] == 60
    answer = me(member.server, f"Bearer {jwt.encode(claims | changed, SECRET)}")
    assert answer.status_code == status
    if status == 401:
        assert_refused(answer, "invalid-token")


def test_a_refresh_token_is_no_access_token_and_the_reverse(user):
    assert_refused(me(user.server, f"Bearer {user.tokens['refresh_token']}"), "invalid-token")
    assert_refused(refresh(user, user.tokens["access_token"]), "invalid-refresh-token")


def test_refresh_rotates(user):
    answer = refresh(user, user.tokens["refresh_token"])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == user.tokens.keys()
    assert answer.json()["refresh_token"] != user.tokens["refresh_token"]
    assert me(user.server, f"Bearer {answer.json()['access_token']}").json()["email"] == user.email


def test_reuse_after_the_child_was_used_revokes_the_family(user):
    parent = user.tokens["refresh_token"]
    child = refreshed(user, parent)
    assert refreshed(user, parent) == child
    grandchild = refreshed(user, child)
    other_login = user.server.log_in(user.email)
    for token in (parent, grandchild, child, parent):
        assert_refused(refresh(user, token), "invalid-refresh-token")
    user_id = other_login.http.get("/auth/me").json()["id"]
    assert [each["user_id"] for each in user.server.logs("user.refresh_token_reused")].count(user_id) == 1
    assert refresh(user, other_login.tokens["refresh_token"]).status_code == 200


def test_replay_after_the_grace_revokes_the_family(member):
    parent, newest = member.tokens["refresh_token"], None
    deadline = time.monotonic() + 10
    while (answer := refresh(member, parent)).status_code == 200 and time.monotonic() < deadline:
        newest = answer.json()["refresh_token"]
    assert_refused(answer, "invalid-refresh-token")
    assert_refused(refresh(member, newest), "invalid-refresh-token")


@pytest.mark.parametrize(
    ("setting", "rotating"),
    [("REFRESH_TOKEN_TTL", False), ("REFRESH_FAMILY_TTL", True)],
    ids=["unused for too long", "logged in too long ago"],
)
def test_refresh_tokens_expire(tmp_path, setting, rotating):
    with Server(tmp_path / "var", {setting: "1", "REFRESH_GRACE_SECONDS": "60"}) as server:
        user = server.register()
        token, deadline, renewed = user.tokens["refresh_token"], time.monotonic() + 10, 0
        while (answer := refresh(user, token)).status_code == 200 and time.monotonic() < deadline:
            token = answer.json()["refresh_token"] if rotating else token
            renewed += 1
        assert_refused(answer, "invalid-refresh-token")
        assert renewed


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_log_out_revokes_the_family_and_no_other(user, generation):
    other_login = user.server.log_in(user.email)
    family = [user.tokens["refresh_token"]]
    for _ in range(2):
        family.append(refreshed(user, family[-1]))
    for token in (family[generation], family[generation], "never issued"):
        answer = user.http.post("/auth/logout", json={"refresh_token": token})
        assert (answer.status_code, answer.content) == (204, b"")
    for token in reversed(family):
        assert_refused(refresh(user, token), "invalid-refresh-token")
    assert refresh(user, other_login.tokens["refresh_token"]).status_code == 200


def test_who_may_register_where_registration_is_closed(guarded):
    refusal = register(guarded, address())
    assert (refusal.status_code, refusal.json()["code"]) == (403, "registration-closed")


@pytest.mark.parametrize(
    ("registration", "status"), [({}, 403), ({"REGISTRATION": "open"}, 201)], ids=["unset", "open"]
)
def test_registration_is_closed_in_production_unless_it_is_opened(tmp_path, registration, status):
    with Server(tmp_path / "var", {"ENVIRONMENT": "production", "JWT_SECRET": SECRET, **registration}) as server:
        assert register(server, address()).status_code == status
