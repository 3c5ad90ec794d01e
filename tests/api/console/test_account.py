"""The account in the console: what it uses, its password, and what happened to it."""

from pathlib import Path

import pytest

from app.auth.principal import Role
from app.console.account.activity import said
from app.events.catalogue.accounts import UserErased
from tests.support.console import Browser, Seen
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

ANOTHER = "another one, and as long"


@pytest.fixture
def browser(process: Process) -> Browser:
    return Browser(process).sign_in(PASSWORD)


def test_what_it_uses_is_shown_by_meters_and_in_words(tmp_path: Path) -> None:
    process = Process(tmp_path, processors="simulated", quota_documents=4, quota_jobs=0)
    browser = Browser(process).sign_in()
    browser.upload()
    page = Seen(browser.get("/console/account").text)
    assert browser.email in page.text
    text = " ".join(page.text.split())
    assert "Documents 1 of 4 25 %" in text
    assert "Unfinished jobs 0 no limit" in text
    meters = {each["aria-labelledby"]: each for tag, each in page.tags if tag == "meter"}
    assert (meters["use-Documents"]["value"], meters["use-Documents"]["max"]) == ("1", "4")
    assert "use-Unfinished-jobs" not in meters
    process.kill()


def test_another_password_ends_the_other_sessions(browser: Browser) -> None:
    other = Browser(browser.process, browser.email).sign_in()
    token = browser.token()
    done = browser.post("/console/account/password", current_password=PASSWORD, new_password=ANOTHER)
    assert browser.done == "password"
    assert "The password was changed" in Seen(done.text).text
    assert other.get("/console").status_code == 303
    assert browser.process.http("GET", "/auth/me", token=token).status_code == 401
    assert browser.get("/console").status_code == 200
    assert other.sign_in(ANOTHER).get("/console").status_code == 200


@pytest.mark.parametrize(
    ("current", "new", "status", "code"),
    [
        ("wrong password", ANOTHER, 403, "wrong-password"),
        ("", ANOTHER, 403, "wrong-password"),
        (PASSWORD, "password123", 422, "weak-password"),
        (PASSWORD, "short", 422, "validation-failed"),
        (PASSWORD, "", 422, "validation-failed"),
    ],
    ids=["wrong", "none", "common", "short", "no new one"],
)
def test_the_password_stays_if_it_is_refused(browser: Browser, current: str, new: str, status: int, code: str) -> None:
    answer = browser.post("/console/account/password", current_password=current, new_password=new)
    assert (answer.status_code, f"<code>{code}</code>" in answer.text) == (status, True), answer.text
    assert current not in answer.text or not current
    assert Browser(browser.process, browser.email).sign_in().get("/console").status_code == 200


def test_guesses_count_like_those_of_the_api(browser: Browser) -> None:
    fields = {"current_password": "wrong password", "new_password": ANOTHER}
    answers = [browser.post("/console/account/password", **fields) for _ in range(12)]
    assert 429 in {each.status_code for each in answers}


def test_what_happened_is_said_in_words(process: Process, browser: Browser) -> None:
    browser.send("POST", "/console/account/password", data={"current_password": "wrong", "new_password": ANOTHER})
    text = Seen(browser.get("/console/account").text).text
    assert {"Signed in", "A wrong password was sent", "The account was made"} <= {
        each.strip() for each in text.split("\n")
    }
    for _ in range(12):
        other = Browser(process, browser.email).sign_in(PASSWORD)
        other.send("POST", "/console/sign-out")
    page = Seen(browser.get("/console/account").text)
    [more] = [each["href"] or "" for tag, each in page.tags if tag == "a" and each.get("rel") == "next"]
    assert "The account was made" not in page.text
    assert "The account was made" in browser.get(more).text
    assert browser.get("/console/account?cursor=x").status_code == 422


def test_operators_who_have_read_are_named_as_such(process: Process, browser: Browser) -> None:
    operator = Browser(process)
    process.operate(lambda accounts: accounts.set_role(operator.email, Role.OPERATOR))
    owner = browser.api("/auth/me")["id"]
    assert process.http("GET", f"/admin/documents?owner_id={owner}", token=operator.token()).status_code == 200
    page = browser.get("/console/account")
    assert "An operator has read what belongs to the account" in page.text
    assert operator.email not in page.text


def test_events_without_words_of_their_own_are_named(browser: Browser) -> None:
    assert said(UserErased.name) == "User: erased"
    assert "Your sessions" not in browser.get("/console/account").text
    assert "/console/sessions" in Seen(browser.get("/console/account").text).attributes("a", "href")
