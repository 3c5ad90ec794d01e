"""Cursors and moments at the ends of what can be said are refused, not fallen over."""

from base64 import urlsafe_b64encode
from typing import Any
from uuid import uuid4

import orjson
import pytest

from app.errors import InvalidCursor
from tests.support.user import User

FIRST, LAST = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"
CURSORS: list[tuple[str, Any]] = [
    ("/documents?sort=size", ["size", 2**63, str(uuid4())]),
    ("/documents?sort=size", ["size", 1.5, str(uuid4())]),
    ("/documents?sort=size", ["size", True, str(uuid4())]),
    ("/documents?sort=created_at", ["created_at", FIRST, str(uuid4())]),
    ("/documents?sort=created_at", ["created_at", LAST, str(uuid4())]),
    ("/documents?sort=filename", ["filename", None, str(uuid4())]),
    ("/documents?sort=filename", ["filename", "a", "no id"]),
    ("/documents?sort=filename", {"sort": "filename"}),
    ("/documents?sort=filename", []),
    ("/jobs?", ["jobs", LAST, str(uuid4())]),
]


@pytest.mark.parametrize(("path", "keys"), CURSORS)
def test_a_made_up_cursor(user: User, path: str, keys: Any) -> None:
    cursor = urlsafe_b64encode(orjson.dumps(keys)).decode()
    answer = user.http.get(f"{path}&cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-cursor")
    assert answer.json()["errors"] == [{"detail": InvalidCursor.explanation, "pointer": "/query/cursor"}]


def test_a_made_up_cursor_of_a_timeline(user: User) -> None:
    path = f"/documents/{user.upload()['id']}/timeline"
    cursor = urlsafe_b64encode(orjson.dumps(["timeline", 2**63, str(uuid4())])).decode()
    assert user.http.get(path, params={"cursor": cursor}).status_code == 422


@pytest.mark.parametrize("moment", [FIRST, LAST])
@pytest.mark.parametrize("name", ["created_after", "created_before"])
def test_a_moment_beyond_the_calendar(user: User, name: str, moment: str) -> None:
    answer = user.http.get("/documents", params={name: moment})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/query/{name}"


def test_a_list_is_counted_if_that_is_asked_for(user: User, stranger: User) -> None:
    ids = [user.upload(metadata={"folder": "f" if n else "g"})["id"] for n in range(3)]
    stranger.upload()
    user.finished(user.start(ids[0])["id"])
    for path, params, total in (
        ("/documents", {}, 3),
        ("/documents", {"folder": "f"}, 2),
        ("/documents", {"folder": "none"}, 0),
        ("/jobs", {}, 1),
        ("/jobs", {"state": "FAILED"}, 0),
    ):
        asked = params | {"limit": "1"}
        assert "total" not in user.http.get(path, params=asked).json()
        page = user.http.get(path, params=asked | {"count": "true"}).json()
        assert page["total"] == total
    cursor = user.http.get("/documents", params={"limit": 1}).json()["next_cursor"]
    second = user.http.get("/documents", params={"limit": 1, "count": "true", "cursor": cursor}).json()
    assert (second["total"], len(second["items"])) == (3, 1)
