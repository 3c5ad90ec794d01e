"""Signing in and out, the session, and which requests are taken."""

import re
from typing import Any

import pytest
from sqlalchemy import select, update

from app.auth.models import token_families
from app.console.frame import formats
from app.database import now
from tests.support.console import OWN, Browser, Seen
from tests.support.inprocess import Process
from tests.support.user import PASSWORD


def test_signing_in_leads_to_the_page_that_was_asked_for(process: Process) -> None:
    browser = Browser(process)
    asked = browser.get("/console/documents?status=FAILED&q=a%20b")
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    [then] = [each["value"] for tag, each in Seen(form.text).tags if each.get("name") == "next"]
    fields = {"email": browser.email, "password": PASSWORD, "next": str(then)}
    arrived = browser.send("POST", "/console/sign-in", data=fields)
    shown = browser.get(arrived.headers["location"])
    assert (shown.status_code, shown.headers["location"]) == (303, "/console/documents?status=FAILED&q=a%20b")
    assert browser.get(shown.headers["location"]).status_code == 200


@pytest.mark.parametrize("then", ["//evil.example", "https://evil.example", "/evil", "..//evil.example", "\r\nx: y"])
def test_signing_in_leads_to_no_other_host(ada: Browser, then: str) -> None:
    fields = {"email": ada.email, "password": PASSWORD, "next": then}
    browser = Browser(ada.process, ada.email)
    arrived = browser.send("POST", "/console/sign-in", data=fields)
    assert browser.get(arrived.headers["location"]).headers["location"].split("/")[:2] == ["", "console"]


@pytest.mark.parametrize("then", ["../x", "../../x", "%2e%2e/x", "a/..\\..\\x", "documents/../../x?q=1"])
def test_signing_in_does_not_leave_the_console(ada: Browser, then: str) -> None:
    arrived = ada.send("GET", "/console/signed-in", params={"next": then})
    assert arrived.headers["location"] == "/console"


def test_the_cookie_is_for_this_host_and_for_no_script(process: Process) -> None:
    browser = Browser(process)
    fields = {"email": browser.email, "password": PASSWORD}
    answer = browser.send("POST", "/console/sign-in", data=fields)
    value, *attributes = answer.headers["set-cookie"].split("; ")
    assert value.startswith("__Host-session=")
    assert len(value) > 50
    assert {each.lower() for each in attributes} == {"httponly", "path=/", "samesite=strict", "secure"}
    rows = process.write(lambda conn: conn.execute(select(token_families.c.cookie_hash)).scalars().all())
    assert value.partition("=")[2].encode() not in rows


def test_a_wrong_password_is_said_on_the_form(process: Process, ada: Browser) -> None:
    browser = Browser(process, ada.email)
    unknown = Browser(process, "nobody@example.com")
    for each in (browser, unknown):
        answer = each.send("POST", "/console/sign-in", data={"email": each.email, "password": "wrong password"})
        assert answer.status_code == 401
        assert "Wrong email or password" in Seen(answer.text).text
        assert each.email in Seen(answer.text).attributes("input", "value")
        assert not each.cookie


def test_failed_attempts_count_like_those_of_the_api(process: Process) -> None:
    browser = Browser(process)
    fields = {"email": browser.email, "password": "wrong password"}
    answers = [browser.send("POST", "/console/sign-in", data=fields) for _ in range(12)]
    assert [each.status_code for each in answers].count(429) > 0
    assert int(answers[-1].headers["retry-after"]) > 0
    login = process.http("POST", "/auth/login", json={"email": browser.email, "password": PASSWORD})
    assert login.status_code == 429


def test_without_tls_signing_in_says_that_it_needs_it(process: Process, ada: Browser) -> None:
    form = process.http("GET", "/console/sign-in")
    assert "needs HTTPS" in Seen(form.text).text
    assert "needs HTTPS" not in Seen(ada.get("/console/sign-in").text).text
    fields = {"email": ada.email, "password": PASSWORD}
    answer = process.http("POST", "/console/sign-in", headers=[("Origin", "http://app")], data=fields)
    assert answer.status_code == 403
    assert "needs HTTPS" in Seen(answer.text).text
    assert "set-cookie" not in answer.headers


def test_a_browser_that_keeps_no_cookie_is_told(process: Process, ada: Browser) -> None:
    fields = {"email": ada.email, "password": PASSWORD}
    answer = process.http("POST", "/console/sign-in", headers=[OWN], data=fields)
    arrived = process.http("GET", answer.headers["location"], headers=[OWN])
    assert "has not kept the session's cookie" in Seen(arrived.text).text


def test_signing_out_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    cookie = browser.cookie
    answer = browser.send("POST", "/console/sign-out")
    assert answer.status_code == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    browser.cookie = cookie
    assert browser.get("/console").headers["location"].startswith("/console/sign-in")


def test_the_session_is_listed_and_ended_by_the_api(process: Process) -> None:
    browser = Browser(process).sign_in()
    token = browser.token()
    listed = process.http("GET", "/auth/sessions", token=token).json()["items"]
    assert [each["current"] for each in listed] == [True, False]
    assert browser.get("/console").status_code == 200
    assert process.http("DELETE", "/auth/sessions", token=token).status_code == 204
    assert browser.get("/console").status_code == 303


def test_sessions_are_shown_and_ended_in_the_console(process: Process) -> None:
    browser, other = (Browser(process).sign_in() for _ in range(2))
    other = Browser(process, browser.email).sign_in()
    token = browser.token()
    page = browser.get("/console/sessions")
    ends = [each for each in Seen(page.text).attributes("form", "action") if re.search(r"[0-9a-f]/end$", each)]
    assert len(ends) == 3
    assert browser.post(ends[1]).status_code == 200
    assert other.get("/console").status_code == 303
    assert browser.post("/console/sessions/end-others").status_code == 200
    assert process.http("GET", "/auth/me", token=token).status_code == 401
    assert browser.get("/console").status_code == 200


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36",
            "Chrome on Linux",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/156.0 Safari/537.36 Edg/156.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 20_0 like Mac OS X) Version/20.0 Safari/604.1", "Safari on iPhone"),
        ("curl/8.14.1", "curl/8.14.1"),
        (None, "Unknown"),
    ],
)
def test_a_session_is_called_by_the_program_that_has_it(agent: str | None, said: str) -> None:
    assert formats.program(agent) == said


def test_another_password_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    body = {"current_password": PASSWORD, "new_password": "another one, and as long"}
    assert process.http("POST", "/auth/password", token=browser.token(), json=body).status_code == 204
    assert browser.get("/console").status_code == 303


def test_disabling_the_account_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    process.operate(lambda accounts: accounts.disable(browser.email))
    assert browser.get("/console").status_code == 303


def test_the_session_ends_unless_it_is_used_and_in_any_case_in_the_end(process: Process) -> None:
    browser = Browser(process).sign_in()

    def ends(**values: Any) -> Any:
        def unit(conn: Any) -> Any:
            newest = select(token_families.c.id).order_by(token_families.c.id.desc()).limit(1).scalar_subquery()
            if values:
                conn.execute(update(token_families).where(token_families.c.id == newest).values(**values))
            found = conn.execute(
                select(token_families.c.expires_at, token_families.c.last_used_at).where(token_families.c.id == newest)
            )
            return found.one()

        return process.write(unit)

    settings = process.services.settings
    before = ends(expires_at=now(60), last_used_at=now(-settings.refresh_token_ttl + 60))
    assert browser.get("/console").status_code == 200
    after = ends()
    assert (after.expires_at - before.expires_at).total_seconds() > settings.refresh_token_ttl - 120
    assert after.last_used_at > before.last_used_at
    assert browser.get("/console").status_code == 200
    assert ends() == after, "not with each page"
    ends(expires_at=now(-1))
    assert browser.get("/console").status_code == 303


def test_the_api_takes_no_cookie_and_the_console_nothing_else(process: Process, ada: Browser) -> None:
    for path in ("/auth/me", "/documents", "/auth/sessions"):
        assert ada.get(path).status_code == 401
    value = ada.cookie.partition("=")[2]
    assert process.http("GET", "/auth/me", token=value).status_code == 401
    assert process.http("POST", "/auth/refresh", json={"refresh_token": value}).status_code == 401
    token = ada.token()
    assert process.http("GET", "/console", token=token).status_code == 303
    assert process.http("GET", "/console", headers=[("Cookie", f"__Host-session={token}")]).status_code == 303
    key = process.http("POST", "/api-keys", token=token, json={"name": "k", "scopes": ["documents:read"]}).json()
    assert process.http("GET", "/console", headers=[("X-API-Key", key["key"])]).status_code == 303


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://app"}, 403),
        ({"Origin": "http://app"}, 303),
        ({"Origin": "https://app"}, 303),
        ({"Origin": "http://app:81"}, 403),
        ({"Origin": "http://app.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "null", "Host": ""}, 403),
        ({}, 403),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/console/sessions/end-others", "/console/trash/empty"])
def test_forms_of_other_sites_are_refused(ada: Browser, path: str, sent: dict[str, str], status: int) -> None:
    headers = [("Cookie", ada.cookie), *sent.items()]
    answer = ada.process.http("POST", path, headers=headers)
    assert answer.status_code == status, answer.text


def test_signing_in_from_another_site_is_refused(ada: Browser) -> None:
    fields = {"email": ada.email, "password": PASSWORD}
    answer = ada.process.http("POST", "/console/sign-in", headers=[("Sec-Fetch-Site", "cross-site")], data=fields)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
