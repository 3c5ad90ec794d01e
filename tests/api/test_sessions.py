"""Sessions: what ends them, and that what has ended is refused at once, at every process."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from jose import jwt
from sqlalchemy import select

from app.auth.models import refresh_tokens
from app.auth.tokens import refresh_token_hash
from tests.support import databases
from tests.support.invariants import Ledger
from tests.support.server import Server, pair
from tests.support.user import PASSWORD, User
from tests.support.waiting import until

NEW_PASSWORD = "another one, and as long"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with pair(tmp_path_factory.mktemp("pair") / "var", JWT_SECRET="a secret of at least thirty-two bytes") as servers:
        yield servers


@pytest.fixture
def user(both: tuple[Server, Server]) -> User:
    return both[0].register()


@pytest.fixture
def other(both: tuple[Server, Server], user: User) -> User:
    """Another session of the same user, at the other process."""
    return both[1].log_in(user.email)


def refresh(user: User, token: str = "") -> httpx2.Response:
    return user.http.post("/auth/refresh", json={"refresh_token": token or user.tokens["refresh_token"]})


def change_password(user: User, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx2.Response:
    return user.http.post("/auth/password", json={"current_password": current, "new_password": new})


def log_in(user: User, password: str) -> httpx2.Response:
    return user.http.post("/auth/login", json={"email": user.email, "password": password})


def sessions(user: User, **query: Any) -> list[dict[str, Any]]:
    answer = user.http.get("/auth/sessions", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def session_id(user: User) -> str:
    [current] = [each["id"] for each in sessions(user) if each["current"]]
    return str(current)


def works(user: User) -> bool:
    """Whether the access token does; its refresh token must not do without it."""
    status = user.http.get("/auth/me").status_code
    assert status in {200, 401}
    if status == 401:
        assert refresh(user).status_code == 401
    return status == 200


def log_out(user: User, _other: User) -> None:
    assert user.http.post("/auth/logout", json={"refresh_token": user.tokens["refresh_token"]}).status_code == 204


def use_twice(user: User, _other: User) -> None:
    child = refresh(user).json()["refresh_token"]
    assert refresh(user, child).status_code == 200
    assert refresh(user).status_code == 401


def end(user: User, _other: User) -> None:
    assert user.http.delete(f"/auth/sessions/{session_id(user)}").status_code == 204


def end_from_another(user: User, other: User) -> None:
    assert other.http.delete(f"/auth/sessions/{session_id(user)}").status_code == 204


def end_all_others(_user: User, other: User) -> None:
    assert other.http.delete("/auth/sessions").status_code == 204


def change_password_elsewhere(_user: User, other: User) -> None:
    assert change_password(other).status_code == 204


WAYS = [log_out, use_twice, end, end_from_another, end_all_others, change_password_elsewhere]


@pytest.mark.parametrize("way", WAYS)
def test_what_ends_a_session_ends_its_access_tokens_everywhere(
    way: Callable[[User, User], None], both: tuple[Server, Server], user: User, other: User
) -> None:
    assert works(user)
    assert works(other)
    way(user, other)
    for server in both:
        assert not works(user.at(server))
        assert works(other.at(server))
    assert refresh(other).status_code == 200


def test_a_session_ends_with_its_absolute_expiry(tmp_path: Any) -> None:
    with Server(tmp_path / "var", {"REFRESH_FAMILY_TTL": "1"}) as server:
        user = server.register()
        assert works(user)
        until(lambda: not works(user))


def test_a_token_of_the_release_before_is_good_while_its_user_is(user: User, other: User) -> None:
    """It names neither a session nor a key."""
    claims = jwt.get_unverified_claims(user.tokens["access_token"])
    del claims["sid"]
    old = jwt.encode(claims, user.server.settings["JWT_SECRET"])
    user.http.headers["Authorization"] = f"Bearer {old}"
    assert user.http.get("/auth/me").json()["email"] == user.email
    assert [each["current"] for each in sessions(user)] == [False, False]
    assert user.http.delete("/auth/sessions").status_code == 204
    assert not works(other)
    assert change_password(user).status_code == 204
    assert user.http.get("/auth/me").status_code == 200


def test_the_list_shows_who_is_logged_in_and_where(user: User, other: User, stranger: User) -> None:
    began = datetime.now(UTC)
    phone = user.server.client()
    phone.headers["User-Agent"] = "phone/1.0 " + "x" * 300
    tokens = phone.post("/auth/login", json={"email": user.email, "password": PASSWORD}).json()
    mine, theirs = sessions(user), [each["id"] for each in sessions(stranger)]
    assert [each["current"] for each in mine] == [False, False, True], "the latest login first"
    newest = mine[0]
    assert newest.keys() == {
        *("id", "created_at", "last_used_at", "user_agent", "client", "current", "expires_at"),
    }
    assert newest["id"] == jwt.get_unverified_claims(tokens["access_token"])["sid"]
    assert newest["client"] == "127.0.0.1"
    assert newest["user_agent"] == ("phone/1.0 " + "x" * 300)[:200]
    logged_in, used, expires = (
        datetime.fromisoformat(newest[name]) for name in ("created_at", "last_used_at", "expires_at")
    )
    assert abs((logged_in - began).total_seconds()) < 10
    assert abs((used - logged_in).total_seconds()) < 10
    assert (expires - used).days in {89, 90}
    assert not {each["id"] for each in mine} & set(theirs)
    assert session_id(other) == mine[1]["id"]


def test_a_refresh_is_the_last_use(user: User) -> None:
    [before] = sessions(user)
    laptop = user.server.client()
    laptop.headers["User-Agent"] = "laptop"
    assert laptop.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]}).status_code == 200
    [after] = sessions(user)
    assert after["last_used_at"] > before["last_used_at"]
    assert after | {"last_used_at": 0, "user_agent": 0} == before | {"last_used_at": 0, "user_agent": 0}
    assert after["user_agent"] == "laptop"


def test_the_list_has_pages(user: User, other: User) -> None:
    third = user.server.log_in(user.email)
    found, cursor = [], None
    while True:
        page = user.http.get("/auth/sessions", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        found += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [session_id(each) for each in (third, other, user)]
    assert user.http.get("/auth/sessions?cursor=x").json()["code"] == "invalid-cursor"


def test_what_is_not_ones_own_cannot_be_ended(user: User, other: User, stranger: User) -> None:
    ended = session_id(other)
    end(other, user)
    for unknown in (session_id(stranger), str(uuid4()), ended):
        answer = user.http.delete(f"/auth/sessions/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert works(stranger)


@pytest.fixture
def stranger(both: tuple[Server, Server]) -> User:
    return both[0].register()


def test_a_password_is_changed_by_who_knows_it(user: User) -> None:
    answer = change_password(user, current="a wrong password")
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong-password")
    for weak in ("password1", user.email):
        answer = change_password(user, new=weak)
        assert (answer.status_code, answer.json()["code"]) == (422, "weak-password")
        assert answer.json()["errors"][0]["pointer"] == "/new_password"
    assert log_in(user, PASSWORD).status_code == 200
    assert change_password(user).status_code == 204
    assert [log_in(user, each).status_code for each in (PASSWORD, NEW_PASSWORD)] == [401, 200]
    assert works(user)
    assert refresh(user).status_code == 200


def test_a_retried_refresh_gets_the_same_child(user: User, both: tuple[Server, Server]) -> None:
    answers = [refresh(user.at(server)).json() for server in (*both, *both)]
    assert len({each["refresh_token"] for each in answers}) == 1
    for answer in answers:
        assert user.http.get("/auth/me", headers={"Authorization": f"Bearer {answer['access_token']}"}).is_success
    child = answers[0]["refresh_token"]
    assert child != user.tokens["refresh_token"]
    assert len(child) == len(user.tokens["refresh_token"])
    assert refresh(user, child).status_code == 200
    assert refresh(user).status_code == 401
    assert not works(user)


def test_the_database_alone_does_not_give_a_refresh_token(user: User) -> None:
    child = refresh(user).json()["refresh_token"]
    tokens = Ledger(user.server.data_dir).rows(select(refresh_tokens))
    kept = {bytes(each.token_hash): each for each in tokens}
    parent = kept[refresh_token_hash(user.tokens["refresh_token"])]
    assert kept[refresh_token_hash(child)].parent_id == parent.id
    assert len(parent.child_seed) == 32
    for row in tokens:
        assert child.encode() not in (bytes(row.token_hash), row.child_seed)


def test_a_token_that_the_release_before_has_rotated_gets_one_child(user: User) -> None:
    token_hash = refresh_token_hash(user.tokens["refresh_token"])
    with databases.engine(user.server.data_dir).begin() as conn:
        rotated = refresh_tokens.update().where(refresh_tokens.c.token_hash == token_hash)
        moment = datetime.now(UTC) if databases.POSTGRESQL else datetime.now(UTC).replace(tzinfo=None)
        conn.execute(rotated.values(rotated_at=moment))
    assert len({refresh(user).json()["refresh_token"] for _ in range(3)}) == 1


@pytest.mark.parametrize("late", [refresh, lambda user: log_in(user, PASSWORD)], ids=["refresh", "login"])
def test_nothing_outlives_a_change_of_the_password(
    late: Callable[[User], httpx2.Response], user: User, other: User
) -> None:
    """Both have verified what they were sent when neither can write yet."""
    with ThreadPoolExecutor(2) as threads:
        with databases.locked(user.server.data_dir):
            changing = threads.submit(change_password, user)
            sleep(0.5)
            racing = threads.submit(late, other)
            sleep(0.5)
        assert changing.result().status_code == 204
        answer = racing.result()
    if answer.status_code == 200:
        used = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert user.http.get("/auth/me", headers=used).status_code == 401
        assert refresh(user, answer.json()["refresh_token"]).status_code == 401
    else:
        assert answer.status_code == 401
    assert works(user)


def test_ended_sessions_are_forgotten(tmp_path: Any) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "0.5"}) as server:
        user = server.register()
        other = server.log_in(user.email)
        log_out(other, user)
        deadline = monotonic() + 10
        while len(Ledger(server.data_dir).rows(select(refresh_tokens))) > 1:
            assert monotonic() < deadline
            sleep(0.05)
        assert works(user)
        assert not works(other)
