"""The audit trail over HTTP: operators read it all, and everybody what happened to their own account."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from app.accounts.service import Accounts
from app.audit import listing, service
from app.auth.principal import Role
from app.settings import Settings
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

ADA, EVE = "ada@example.com", "eve@example.com"
NETWORK = "127.0.0.0/24"


class Service:
    """A process with an operator, Eve, and a user, Ada, who has a document and has mistyped her password."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ids = [self.ask("POST", "/auth/register", json=each)["id"] for each in map(credentials, (ADA, EVE))]
        process.operate(lambda accounts: Accounts.set_role(accounts, EVE, Role.OPERATOR))
        process.http("POST", "/auth/login", json=credentials(ADA) | {"password": "mistyped"})
        self.tokens = [self.ask("POST", "/auth/login", json=credentials(each))["access_token"] for each in (ADA, EVE)]
        self.ada, self.eve = self.tokens
        file = {"file": ("a.pdf", pdf(), PDF_TYPE)}
        self.document = self.ask("POST", "/documents", token=self.ada, files=file)["id"]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.process.http(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def audit(self, query: str = "") -> list[dict[str, Any]]:
        """All that Eve is told, page by page, the latest first."""
        found, cursor = [], ""
        while True:
            page = self.ask("GET", f"/audit?limit=2&{query}{cursor}", token=self.eve)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


def credentials(email: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD}


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["event"] for item in items if not item["event"].startswith(("audit.", "settings.", "storage."))]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    process = Process(tmp_path_factory.mktemp("audit") / "var", audit_reads="all")
    yield Service(process)
    process.kill()


def test_operators_find_events_by_every_filter(told: Service) -> None:
    ada = told.ids[0]
    of_ada = ["document.uploaded", "user.logged_in", "user.login_failed", "user.registered"]
    everything = told.audit()
    assert names(told.audit(f"user_id={ada}")) == of_ada
    assert names(told.audit(f"document_id={told.document}")) == of_ada[:1]
    assert names(told.audit("event=user.login_failed")) == ["user.login_failed"]
    assert names(told.audit("actor=operator")) == ["user.role_changed"]
    assert names(told.audit(f"actor=user:{ada}&ip=127.0.0.77")) == ["document.uploaded", "user.logged_in", of_ada[3]]
    assert names(told.audit("ip=203.0.113.9")) == []
    (failed,) = told.audit("event=user.login_failed")
    assert (failed["user_id"], failed["ip"], failed["actor"]) == (ada, NETWORK, "anonymous")
    since = f"since={failed['at']}&until={everything[0]['at']}"
    assert "user.registered" not in names(told.audit(since))
    assert failed in told.audit(since)
    assert told.audit("until=2020-01-01T00:00:00Z") == told.audit("since=2999-01-01T00:00:00Z") == []


def test_the_session_of_a_request_is_recorded(told: Service) -> None:
    (session,) = told.ask("GET", "/auth/sessions", token=told.ada)["items"]
    (uploaded,) = told.audit("event=document.uploaded")
    assert uploaded["credential_id"] == session["id"]


def test_a_page_looks_through_a_part_of_the_trail_and_the_next_goes_on(told: Service) -> None:
    whole = told.audit(f"user_id={told.ids[0]}")
    with patch.object(listing, "WINDOW", 2):
        assert told.audit(f"user_id={told.ids[0]}") == whole
        page = told.ask("GET", "/audit?event=user.registered", token=told.eve)
        assert page["items"] == []
        assert page["next_cursor"]


def test_reading_the_trail_is_an_event(told: Service) -> None:
    told.audit("event=user.registered")
    told.process.http("GET", "/audit/export?ip=127.0.0.1", token=told.eve)
    exported, read = told.audit("event=audit.exported")[0], told.audit("event=audit.read")
    assert exported["data"] == {"filters": {"ip": NETWORK}}
    assert {"filters": {"event": "user.registered"}} in [each["data"] for each in read]
    assert {each["actor"] for each in [exported, *read]} == {f"user:{told.ids[1]}"}


def test_everything_is_exported_as_of_the_beginning(told: Service) -> None:
    before = told.audit()
    with patch.object(service, "PIECE", 3):
        answer = told.process.http("GET", "/audit/export", token=told.eve)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[: len(before)] == before[::-1]
    assert "audit.exported" not in {line["event"] for line in lines[len(before) :]}
    filtered = told.process.http("GET", "/audit/export?event=user.logged_in", token=told.eve)
    assert names([json.loads(line) for line in filtered.text.splitlines()]) == ["user.logged_in"] * 2
    assert told.process.http("HEAD", "/audit/export", token=told.eve).status_code == 200


def test_users_see_what_happened_to_their_own_account(told: Service) -> None:
    first = told.ask("GET", "/auth/me/activity?limit=2", token=told.ada)
    rest = told.ask("GET", f"/auth/me/activity?cursor={first['next_cursor']}", token=told.ada)
    assert names(first["items"] + rest["items"]) == ["user.logged_in", "user.login_failed", "user.registered"]
    assert rest["next_cursor"] is None
    assert "user.role_changed" in names(told.ask("GET", "/auth/me/activity?limit=100", token=told.eve)["items"])


def test_users_do_not_see_the_trail(told: Service) -> None:
    for path in ("/audit", "/audit/export"):
        assert told.process.http("GET", path, token=told.ada).json()["code"] == "insufficient-scope"


@pytest.mark.parametrize("query", ["ip=somewhere", "since=yesterday", "user_id=x", "cursor=x", "unknown=1"])
def test_what_is_no_filter_is_refused(told: Service, query: str) -> None:
    assert told.process.http("GET", f"/audit?{query}", token=told.eve).status_code in {400, 422}


def test_content_that_is_sent_is_an_event_if_it_shall_be(told: Service) -> None:
    told.process.http("GET", f"/documents/{told.document}/content", token=told.ada, headers=[("Range", "bytes=2-4")])
    (read,) = told.audit("event=document.content_read")
    assert read["data"] == {"start": 2, "length": 3}
    assert (read["document_id"], read["user_id"]) == (told.document, told.ids[0])
    told.process.http("GET", f"/documents/{told.document}/content?file=1", token=told.ada)
    read, _ = told.audit("event=document.content_read")
    assert read["data"]["number"] == 1


def test_content_that_is_sent_is_no_event_by_default(tmp_path: Path) -> None:
    process = Process(tmp_path / "var")
    told = Service(process)
    process.http("GET", f"/documents/{told.document}/content", token=told.ada)
    assert told.audit("event=document.content_read") == []
    process.kill()


def test_each_start_records_its_settings_but_for_the_secrets(told: Service) -> None:
    (started,) = told.audit("event=settings.started")
    assert len(started["data"]["sha256"]) == 64

    def of(**options: Any) -> str:
        return Settings(_env_file=None, **options).fingerprint

    assert of(jwt_secret="x" * 32) == of(jwt_secret="y" * 32)
    assert of() != of(port=1)
    url = "postgresql://user:{}@host/name"
    assert of(database_url=url.format("one")) == of(database_url=url.format("other"))
