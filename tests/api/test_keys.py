"""API keys: what is made, shown once, rotated, revoked and forgotten, and what requests with one may do."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, Update, event, select, update

from app.auth.keys.text import new_key
from app.auth.models import api_key_secrets, api_keys, users
from app.auth.principal import KEY_SCOPES, Role, Scope
from app.database import metadata, now, statements
from app.events import Record, events
from app.telemetry import context
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.invariants import Ledger
from tests.support.user import PASSWORD

DAY = 86400
WRITING = ["documents:read", "documents:write", "documents:process"]
FILE = {"files": {"file": ("a.pdf", pdf(), PDF_TYPE)}}


class Owner:
    """An account with a login, in a process and a database of its own."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        self.data_dir = data_dir
        self.process = Process(data_dir, **options)
        self.email = "ada@example.com"
        account = {"email": self.email, "password": PASSWORD}
        self.id = UUID(self.process.http("POST", "/auth/register", json=account).json()["id"])
        self.token: str = self.process.http("POST", "/auth/login", json=account).json()["access_token"]

    def ask(self, method: str, path: str, status: int, **options: Any) -> Any:
        """With the login, unless another token is given."""
        answer = self.process.http(method, path, **{"token": self.token} | options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def make(self, scopes: list[str] | None = None, status: int = 201, key: str | None = None, **more: Any) -> Any:
        wanted = {"name": "a program", "scopes": scopes or WRITING} | more
        return self.ask("POST", "/api-keys", status, json=wanted, key=key)

    def rotate(self, made: Any, status: int = 200, key: str | None = None, **body: Any) -> Any:
        return self.ask("POST", f"/api-keys/{made['id']}/rotate", status, json=body, key=key)

    def revoke(self, made: Any) -> None:
        self.ask("DELETE", f"/api-keys/{made['id']}", 204)

    def seen(self, made: Any) -> Any:
        return self.ask("GET", f"/api-keys/{made['id']}", 200)

    def refused(self, api_key: str) -> str | None:
        """The code of the refusal of a request with the key; None if it is answered."""
        answer = self.process.http("GET", "/documents", token=api_key)
        if answer.is_success:
            return None
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        return str(answer.json()["code"])

    def change(self, *statements: Update) -> None:
        """Change rows, past the service."""
        with databases.engine(self.data_dir).begin() as conn:
            for statement in statements:
                conn.execute(statement)

    def told(self, name: str = "") -> list[Any]:
        """What was recorded of keys, or of one thing that happened to them."""
        rows = Ledger(self.data_dir).rows(select(events).order_by(events.c.seq))
        return [row for row in rows if row.event.startswith(name or "key.")]

    def everything(self) -> str:
        """All that the database holds."""
        ledger = Ledger(self.data_dir)
        return "".join(map(str, (ledger.rows(select(table)) for table in metadata.sorted_tables)))


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """Of keys that are made by test after test."""
    owner = Owner(tmp_path_factory.mktemp("keys") / "var", quota_api_keys=0)
    yield owner
    owner.process.kill()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Owner]:
    """An owner whom no other test sees."""
    owner = Owner(tmp_path / "var", quota_api_keys=3, api_key_max_ttl=90 * DAY, rate_limit="40/hour")
    yield owner
    owner.process.kill()


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    found: list[str] = []
    execute = statements.execute

    def prepared(conn: Any, sql: str, parameters: list[Any]) -> Any:
        found.append(sql)
        return execute(conn, sql, parameters)

    def others(_conn: Any, _cursor: Any, sql: str, *_: Any) -> None:
        found.append(sql)

    event.listen(Engine, "before_cursor_execute", others)
    try:
        with patch.object(statements, "execute", prepared):
            yield found
    finally:
        event.remove(Engine, "before_cursor_execute", others)


def test_a_key_is_shown_once(owner: Owner) -> None:
    made = owner.make(name="Nächtlich", scopes=["documents:read", "documents:read", "webhooks:manage"], expires_in=DAY)
    key = made.pop("key")
    assert (key[:12], key[-4:], len(key)) == (made["prefix"], made["last4"], 42)
    assert (made["name"], made["scopes"]) == ("Nächtlich", ["documents:read", "webhooks:manage"])
    assert owner.seen(made) == made
    assert owner.ask("GET", "/api-keys", 200)["items"][0] == made


def test_the_list_has_pages(alone: Owner) -> None:
    made = [alone.make(name=str(number))["id"] for number in range(3)]
    found, cursor = list[str](), ""
    while cursor is not None:
        page = alone.ask("GET", f"/api-keys?limit=1{cursor and '&cursor='}{cursor}", 200)
        found += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert found == made[::-1], "the newest first"
    assert alone.ask("GET", "/api-keys?cursor=x", 422)["code"] == "invalid-cursor"


def test_it_is_sent_once_in_either_header(owner: Owner) -> None:
    key, other = owner.make()["key"], owner.make()["key"]
    bearer, named = ("Authorization", f"Bearer {key}"), ("X-API-Key", key)
    answers = {
        (bearer,): 200,
        (("authorization", f"bEARER  {key}"),): 200,
        (named,): 200,
        (bearer, named): 401,
        (named, ("X-API-Key", other)): 401,
        (named, named): 401,
        (bearer, bearer): 401,
        (named, ("Authorization", "Basic QTpC")): 401,
        (named, ("Authorization", f"Bearer {owner.token}")): 401,
        (("X-API-Key", owner.token),): 401,
        (("X-API-Key", ""),): 401,
        (("X-API-Key", f"Bearer {key}"),): 401,
        (("Authorization", f"Basic {key}"),): 401,
    }
    for headers, status in answers.items():
        answer = owner.process.http("GET", "/documents", headers=headers)
        assert answer.status_code == status, headers
        if status == 401:
            challenge = "Bearer" if "Basic dla_" in str(headers) else 'Bearer error="invalid_token"'
            assert answer.headers["www-authenticate"] == challenge


def test_a_program_does_the_whole_job(owner: Owner) -> None:
    """And its events name the key."""
    made = owner.make()
    document = owner.ask("POST", "/documents", 201, token=made["key"], **FILE)
    job = owner.ask("POST", f"/documents/{document['id']}/process", 202, token=made["key"])["job"]
    owner.process.work(UUID(job["id"]))
    assert owner.ask("GET", job_url := f"/jobs/{job['id']}", 200, token=made["key"])["state"] == "SUCCEEDED", job_url
    assert document["owner_id"] == str(owner.id)
    timeline = owner.ask("GET", f"/documents/{document['id']}/timeline", 200, token=made["key"])["items"]
    actors = {each["actor"] for each in timeline if not each["actor"].startswith("worker:")}
    assert actors == {f"key:{made['id']}"}
    announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 9}
    owner.ask("POST", "/documents/initiate-upload", 201, token=made["key"], json=announced)


def test_an_idempotency_key_is_the_account_s(owner: Owner) -> None:
    sent = FILE | {"key": uuid4().hex}
    first = owner.ask("POST", "/documents", 201, **sent)
    assert owner.ask("POST", "/documents", 201, token=owner.make()["key"], **sent) == first


def test_a_good_key_costs_one_statement_and_junk_none(owner: Owner) -> None:
    key = owner.make(["webhooks:manage"])["key"]
    with counted() as found:
        owner.ask("GET", "/documents", 403, token=key)
    assert len(found) == 1
    junk = [key[:-1], key + "x", key[:20] + "é" + key[21:], key.swapcase(), f"dla_{'0' * 38}", "dla_", key + "\x00"]
    with counted() as found:
        for each in junk:
            assert owner.process.http("GET", "/documents", headers=[("X-API-Key", each)]).status_code == 401
            owner.ask("GET", "/documents", 401, token=each)
    assert found == []
    with counted() as found:
        assert owner.refused(new_key()) == "invalid-token"
    assert len(found) == 1, "it could be one"


def test_an_expired_key_says_so_and_is_listed_for_a_while(owner: Owner) -> None:
    made = owner.make(expires_in=DAY)
    assert owner.refused(made["key"]) is None
    own = api_keys.c.id == UUID(made["id"])
    owner.change(update(api_keys).where(own).values(expires_at=now(-1)))
    assert owner.refused(made["key"]) == "api-key-expired"
    owner.process.tick()
    assert owner.seen(made)["name"] == "a program"
    assert owner.rotate(made, 409)["code"] == "conflict"
    owner.change(update(api_keys).where(own).values(expires_at=now(-30 * DAY)))
    owner.process.tick()
    assert owner.ask("GET", f"/api-keys/{made['id']}", 404)["code"] == "not-found"
    assert owner.refused(made["key"]) == "invalid-token"
    assert not Ledger(owner.data_dir).rows(select(api_key_secrets).where(api_key_secrets.c.key_id == UUID(made["id"])))


def test_a_revoked_key_is_gone(owner: Owner) -> None:
    made, other = owner.make(), owner.make()
    owner.revoke(made)
    assert [owner.refused(each["key"]) for each in (made, other)] == ["invalid-token", None]
    assert made["id"] not in [each["id"] for each in owner.ask("GET", "/api-keys", 200)["items"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert owner.ask(method, f"/api-keys/{made['id']}{path}", 404)["code"] == "not-found"


def test_what_is_another_s_is_not_there(owner: Owner) -> None:
    made = owner.make()
    stranger = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    owner.process.http("POST", "/auth/register", json=stranger)
    token = owner.process.http("POST", "/auth/login", json=stranger).json()["access_token"]
    assert owner.ask("GET", "/api-keys", 200, token=token)["items"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert owner.ask(method, f"/api-keys/{made['id']}{path}", 404, token=token)["code"] == "not-found"
    assert owner.refused(made["key"]) is None


def test_a_rotation_overlaps(owner: Owner) -> None:
    made = owner.make()
    second = owner.rotate(made)
    assert second["id"] == made["id"]
    assert [owner.refused(each["key"]) for each in (made, second)] == [None, None]
    assert (second["prefix"], second["last4"]) == (second["key"][:12], second["key"][-4:])
    assert owner.rotate(made, 409)["code"] == "rotation-in-progress"
    older = api_key_secrets.c.expires_at.is_not(None)
    owner.change(update(api_key_secrets).where(older).values(expires_at=now()))
    assert [owner.refused(each["key"]) for each in (made, second)] == ["invalid-token", None]
    third = owner.rotate(made, previous_valid_for=0)
    keys = (made, second, third)
    assert [owner.refused(each["key"]) for each in keys] == ["invalid-token", "invalid-token", None]
    assert owner.seen(made)["previous_valid_until"] is None
    fourth = owner.rotate(third)
    fifth = owner.rotate(third, previous_valid_for=0)  # a secret has leaked in an overlap
    assert [owner.refused(each["key"]) for each in (third, fourth, fifth)] == ["invalid-token", "invalid-token", None]
    for wrong in (-1, 604801, 0.5, "1"):
        owner.rotate(made, 422, previous_valid_for=wrong)


def test_nobody_makes_a_key_that_may_do_more(owner: Owner) -> None:
    for scope in ("operator", "worker", "audit:read"):
        answer = owner.process.http("POST", "/api-keys", token=owner.token, json={"name": "a", "scopes": [scope]})
        told = f"This needs the scope {scope}, which only operators have."
        assert (answer.status_code, answer.json()["detail"]) == (403, told)
        assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    for scopes in ([], ["account:read"], ["account:write", "documents:read"], ["documents"], "documents:read"):
        owner.ask("POST", "/api-keys", 422, json={"name": "a", "scopes": scopes})


def test_a_key_may_do_no_more_than_its_owner_now(alone: Owner) -> None:
    def become(role: Role) -> None:
        alone.process.operate(lambda accounts: accounts.set_role(alone.email, role))

    become(Role.OPERATOR)
    made = alone.make([*KEY_SCOPES])
    assert alone.process.principal(made["key"]).scopes == set(KEY_SCOPES)
    become(Role.USER)
    assert set(KEY_SCOPES) - alone.process.principal(made["key"]).scopes == {
        *(Scope.OPERATOR, Scope.WORKER, Scope.AUDIT_READ),
    }
    become(Role.OPERATOR)
    assert alone.process.principal(made["key"]).scopes == set(KEY_SCOPES)


def test_keys_end_with_their_account(alone: Owner) -> None:
    made = alone.make()
    alone.process.operate(lambda accounts: accounts.set_password(alone.email, f"{PASSWORD} anew"))
    assert alone.refused(made["key"]) is None, "programs go on when a person changes the password"
    alone.process.operate(lambda accounts: accounts.disable(alone.email))
    assert alone.refused(made["key"]) == "invalid-token"
    alone.process.operate(lambda accounts: accounts.enable(alone.email))
    assert alone.refused(made["key"]) is None
    alone.process.operate(lambda accounts: accounts.erase(alone.email))
    assert alone.refused(made["key"]) == "invalid-token"
    assert not Ledger(alone.data_dir).rows(select(api_keys))
    assert not Ledger(alone.data_dir).rows(select(api_key_secrets))


def test_limits(alone: Owner) -> None:
    first = alone.make()
    lasts = alone.seen(first)["expires_at"]
    assert lasts is not None, "as long as the service allows"
    [pointer] = [each["pointer"] for each in alone.make(status=422, expires_in=90 * DAY + 1)["errors"]]
    assert pointer == "/expires_in"
    for wrong in (0, -1, 1.5, "60", 10**12):
        alone.make(status=422, expires_in=wrong)
    for name in ("", "x" * 101, "two\nlines"):
        alone.make(status=422, name=name)
    alone.make()
    alone.make()
    assert alone.make(status=403)["code"] == "api-key-quota-exceeded"
    alone.revoke(first)
    alone.make()


def test_keys_share_the_rate_and_the_share_of_their_account(alone: Owner) -> None:
    keys = [alone.make()["key"] for _ in range(2)]
    owners = list[tuple[str | None, str]]()

    def listen(_conn: Any, record: Record) -> None:
        owners.append((context.owner(), record.actor))

    alone.process.subscribe(listen)
    for token in (*keys, alone.token):
        alone.ask("POST", "/documents", 201, token=token, files={"file": ("a.pdf", pdf(token), PDF_TYPE)})
    assert {owner for owner, _ in owners} == {str(alone.id)}
    assert len({actor for _, actor in owners}) == 3
    left = [
        alone.process.http("GET", "/documents", token=token).headers["ratelimit"].partition("r=")[2].partition(";")[0]
        for token in (*keys, alone.token)
    ]
    assert [int(each) for each in left] == list(range(int(left[0]), int(left[0]) - 3, -1))


def test_a_replay_shows_no_key(owner: Owner) -> None:
    """It is stored nowhere."""
    name = uuid4().hex
    made = owner.make(key=name)
    assert owner.make(key=name) == made | {"key": None}
    owner.make(key=name, status=422, name="another")
    rotated = owner.rotate(made, key=f"{name} rotated")
    assert owner.rotate(made, key=f"{name} rotated") == rotated | {"key": None}
    assert [owner.refused(each["key"]) for each in (made, rotated)] == [None, None]
    stored = owner.everything()
    assert (name in stored, made["key"] in stored, rotated["key"] in stored) == (True, False, False)
    for file in owner.data_dir.rglob("*"):
        assert not file.is_file() or made["key"].encode() not in file.read_bytes()
    owner.revoke(made)
    owner.rotate(made, 404, key=f"{name} rotated")


def test_what_happens_to_keys_is_recorded_without_them(owner: Owner) -> None:
    before = len(owner.told())
    made = owner.make(expires_in=7 * DAY - 60)
    rotated = owner.rotate(made, previous_valid_for=60)
    owner.process.tick()
    owner.process.tick()
    owner.revoke(made)
    told = owner.told()[before:]
    assert [row.event for row in told] == ["key.created", "key.rotated", "key.expiring", "key.revoked"]
    assert {row.user_id for row in told} == {owner.id}
    assert {row.data["key_id"] for row in told} == {made["id"]}
    assert [row.actor.partition(":")[0] for row in told] == ["user", "user", "worker", "user"]
    assert (told[0].data["scopes"], told[1].data["previous_valid_for"]) == (WRITING, 60)
    assert "a program" not in str(told)
    assert not [row for row in told if made["key"] in str(row) or rotated["key"] in str(row)]


def test_only_a_key_that_expires_soon_is_told_of(alone: Owner) -> None:
    alone.make()
    later = alone.make(expires_in=8 * DAY)
    alone.process.tick()
    assert alone.told("key.expiring") == []
    alone.change(update(api_keys).where(api_keys.c.id == UUID(later["id"])).values(expires_at=now(7 * DAY - 1)))
    alone.process.tick()
    [told] = alone.told("key.expiring")
    assert told.data == {"key_id": later["id"], "expires_at": alone.seen(later)["expires_at"].replace("Z", "+00:00")}


def test_the_last_use_is_stored_now_and_then(alone: Owner) -> None:
    made, unused = alone.make(), alone.make()
    with counted() as found:
        for _ in range(5):
            assert alone.refused(made["key"]) is None
    assert not [sql for sql in found if not sql.startswith("SELECT")], "no request writes"
    assert alone.seen(made)["last_used_at"] is None
    with counted() as found:
        alone.process.tick()
    assert len([sql for sql in found if "last_used_ip" in sql]) == 1
    used = alone.seen(made)
    assert (used["last_used_ip"], used["last_used_at"] > made["created_at"]) == ("127.0.0.1", True)
    assert alone.seen(unused)["last_used_at"] is None
    later = {"last_used_at": now(60), "last_used_ip": "192.0.2.7"}
    alone.change(update(api_keys).where(api_keys.c.id == UUID(made["id"])).values(later))
    alone.refused(made["key"])
    alone.process.tick()
    assert alone.seen(made)["last_used_ip"] == "192.0.2.7", "another process knows of a later one"


UPLOAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + pdf() + b"\r\n--b--\r\n"
LATE = {
    "POST /documents": ("multipart/form-data; boundary=b", UPLOAD),
    "POST /documents/initiate-upload": (
        "application/json",
        json.dumps({"filename": "a.pdf", "content_type": PDF_TYPE, "size": 9}).encode(),
    ),
    "POST /documents/{id}/process": ("application/json", b'{"processor": "simulated"}'),
    "POST /documents/process-batch": ("application/json", b'{"document_ids": ["%s"]}' % str(uuid4()).encode()),
    "PATCH /documents/{id}": ("application/json", b'{"folder": "a"}'),
}
ENDS: dict[str, Callable[[UUID], Update]] = {
    "revoked": lambda id_: update(api_keys).where(api_keys.c.id == id_).values(revoked_at=now(), expires_at=now()),
    "rotated out": lambda id_: update(api_key_secrets).where(api_key_secrets.c.key_id == id_).values(expires_at=now()),
    "expired": lambda id_: update(api_keys).where(api_keys.c.id == id_).values(expires_at=now()),
    "of an account that was disabled": lambda _: update(users).values(active=False),
}


@pytest.mark.parametrize(
    ("end", "call"),
    [*(("revoked", call) for call in LATE), *((end, "POST /documents") for end in ENDS if end != "revoked")],
    ids=lambda each: each.replace(" ", "-"),
)
def test_a_key_that_ends_while_the_body_arrives_adds_nothing(owner: Owner, end: str, call: str) -> None:
    made = owner.make()
    document = owner.ask("POST", "/documents", 201, **FILE)
    before = owner.ask("GET", "/documents?limit=100", 200)
    method, path = call.format(id=document["id"]).split()
    kind, content = LATE[call]

    async def body() -> AsyncIterator[bytes]:
        yield content[:9]
        owner.change(ENDS[end](UUID(made["id"])))
        yield content[9:]

    answer = owner.process.http(method, path, token=made["key"], kind=kind, content=body())
    code = "api-key-expired" if end == "expired" else "invalid-token"
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    owner.change(update(users).values(active=True))
    assert owner.ask("GET", "/documents?limit=100", 200) == before


def test_a_browser_of_another_origin_may_send_one(tmp_path: Path) -> None:
    process = Process(tmp_path / "var", cors_origins="https://app.example.com")
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "last-event-id, x-api-key, x-break-glass"
    answer = process.http("OPTIONS", "/documents", headers=[*asked.items()])
    process.kill()
    assert answer.status_code == 200
    assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()
