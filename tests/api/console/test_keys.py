"""API keys in the console: made and rotated, shown once, and revoked."""

import re
from uuid import uuid4

import pytest

from app.auth.principal import KEY_SCOPES, Role
from tests.support.console import MARKUP, Browser, Seen
from tests.support.inprocess import Process

KEY = re.compile(r"dla_[0-9A-Za-z]{38}")
FIELDS = {"name": "a program", "scope.documents:read": "on", "scope.documents:write": "on"}


@pytest.fixture
def browser(process: Process) -> Browser:
    return Browser(process).sign_in()


def made(browser: Browser, **fields: str) -> str:
    """A new key."""
    answer = browser.send("POST", "/console/keys", data={**FIELDS, "key": str(uuid4()), **fields})
    [key] = set(KEY.findall(answer.text))
    return key


def works(browser: Browser, key: str) -> bool:
    return browser.process.http("GET", "/documents", headers=[("X-API-Key", key)]).status_code == 200


def test_a_key_is_shown_once(browser: Browser) -> None:
    assert "no API keys yet" in browser.get("/console/keys").text
    fields = {**FIELDS, "key": str(uuid4()), "days": "2"}
    answer = browser.send("POST", "/console/keys", data=fields)
    [key] = set(KEY.findall(answer.text))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert works(browser, key)
    again = browser.send("POST", "/console/keys", data=fields)
    assert (KEY.findall(again.text), "Nothing was done this time" in again.text) == ([], True)
    [listed] = browser.api("/api-keys")["items"]
    assert listed["scopes"] == ["documents:read", "documents:write"]
    assert listed["expires_at"] is not None
    page = browser.get("/console/keys").text
    assert (key in page, f"{key[:12]}…{key[-4:]}" in page) == (False, True)


def test_a_key_has_only_scopes_of_its_account(process: Process, browser: Browser) -> None:
    offered = {each for each in Seen(browser.get("/console/keys").text).attributes("input", "name") if "scope" in each}
    assert offered == {f"scope.{each}" for each in KEY_SCOPES if each not in ("worker", "audit:read", "operator")}
    forged = browser.send("POST", "/console/keys", data={"name": "n", "scope.operator": "on", "key": str(uuid4())})
    assert (forged.status_code, KEY.findall(forged.text)) == (403, [])
    account = browser.send(
        "POST", "/console/keys", data={"name": "n", "scope.account:write": "on", "key": str(uuid4())}
    )
    assert account.status_code == 422
    operator = Browser(process)
    process.operate(lambda accounts: accounts.set_role(operator.email, Role.OPERATOR))
    assert 'name="scope.operator"' in operator.sign_in().get("/console/keys").text


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "x" * 101}, {"days": "0"}, {"days": "x"}, {"days": "99999"}, {"key": "x"}],
    ids=str,
)
def test_what_is_refused_says_why(ada: Browser, wrong: dict[str, str]) -> None:
    answer = ada.send("POST", "/console/keys", data={**FIELDS, "key": str(uuid4()), **wrong})
    assert (answer.status_code, "validation-failed" in answer.text) == (422, True)


def test_rotate(browser: Browser) -> None:
    before = made(browser)
    [listed] = browser.api("/api-keys")["items"]
    path, fields = f"/console/keys/{listed['id']}/rotate", {"key": str(uuid4()), "previous_valid_for": "3600"}
    answer = browser.send("POST", path, data=fields)
    [after] = set(KEY.findall(answer.text))
    assert answer.headers["cache-control"] == "no-store"
    assert works(browser, before)
    assert works(browser, after)
    again = browser.send("POST", path, data=fields)
    assert (KEY.findall(again.text), "Nothing was done this time" in again.text) == ([], True)
    assert works(browser, after)
    assert "the one before is good until" in browser.get("/console/keys").text
    refused = browser.send("POST", path, data={**fields, "key": str(uuid4())})
    assert (refused.status_code, "rotation-in-progress" in refused.text) == (409, True)
    last = browser.send("POST", path, data={"key": str(uuid4()), "previous_valid_for": "0"})
    assert KEY.search(last.text)
    assert not works(browser, before)
    assert not works(browser, after)


def test_revoke(browser: Browser) -> None:
    key = made(browser, name=MARKUP)
    [listed] = browser.api("/api-keys")["items"]
    assert MARKUP in Seen(browser.get("/console/keys").text).text
    assert "no API keys yet" in browser.post(f"/console/keys/{listed['id']}/revoke").text
    assert not works(browser, key)
    assert browser.post(f"/console/keys/{listed['id']}/revoke").status_code == 404
