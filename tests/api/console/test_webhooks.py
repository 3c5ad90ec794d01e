"""Webhooks in the console: what forms do, a secret that is shown once, and the log of deliveries."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from app.webhooks.payloads import EventType
from tests.support.console import MARKUP, Browser, Seen
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.receiver import NOBODY, Receiver, receiving

SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")


@pytest.fixture
def browser(process: Process) -> Browser:
    return Browser(process).sign_in()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def added(browser: Browser, url: str = NOBODY, **fields: str) -> str:
    """The path of the page of a new webhook."""
    answer = browser.send("POST", "/console/webhooks", data={"url": url, "key": str(uuid4()), **fields})
    assert answer.status_code == 200, answer.text
    [path] = {each for each in Seen(answer.text).attributes("a", "href") if "/webhooks/" in each}
    return path


def seen(browser: Browser, page: str) -> dict[str, object]:
    """The webhook of a page, as the API shows it."""
    found: dict[str, object] = browser.api(page.removeprefix("/console"))
    return found


def test_the_secret_is_shown_once(browser: Browser) -> None:
    fields = {"url": NOBODY, "key": str(uuid4()), "event.document.failed": "on", "description": "d"}
    answer = browser.send("POST", "/console/webhooks", data=fields)
    [secret] = set(SECRET.findall(answer.text))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    [copied] = [each for tag, each in Seen(answer.text).tags if tag == "button" and "data-copy" in each]
    assert 'id="secret"' in answer.text
    assert (copied["data-copy"], "hidden" in copied) == ("secret", True)
    again = browser.send("POST", "/console/webhooks", data=fields)
    assert (SECRET.findall(again.text), "Nothing was done this time" in again.text) == ([], True)
    [webhook] = browser.api("/webhooks")["items"]
    assert (webhook["event_types"], webhook["description"]) == (["document.failed"], "d")
    for page in ("/console/webhooks", f"/console/webhooks/{webhook['id']}"):
        assert secret not in browser.get(page).text


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"url": "ftp://example.com"}, 422, "url-not-allowed"),
        ({}, 422, "validation-failed"),
        ({"url": NOBODY, "key": "x"}, 422, "validation-failed"),
        ({"url": NOBODY, "description": "\x01"}, 422, "validation-failed"),
    ],
)
def test_what_is_refused_says_why(ada: Browser, fields: dict[str, str], status: int, code: str) -> None:
    answer = ada.send("POST", "/console/webhooks", data={"key": str(uuid4()), "nothing": "x", **fields})
    assert (answer.status_code, f"<code>{code}</code>" in answer.text) == (status, True), answer.text


def test_edit_pause_and_resume(browser: Browser) -> None:
    page = added(browser)
    form = {"version": "1", "url": NOBODY, "url_before": NOBODY, "description": "new"}
    browser.post(f"{page}/edit", **form, **{f"event.{each}": "on" for each in EventType})
    assert seen(browser, page)["event_types"] == [str(each) for each in EventType]
    assert browser.post(f"{page}/edit", **form).status_code == 412
    moved = {"version": "2", "url": f"{NOBODY}/there", "url_before": NOBODY}
    assert "/there" in browser.post(f"{page}/edit", **moved).text
    assert (seen(browser, page)["description"], seen(browser, page)["event_types"]) == (None, None)
    assert "Paused" in Seen(browser.post(f"{page}/edit", version="3", state="PAUSED").text).text
    assert seen(browser, page)["url"] == f"{NOBODY}/there"
    assert "Active" in Seen(browser.post(f"{page}/edit", version="4", state="ACTIVE").text).text
    assert browser.post(f"{page}/edit", version="5", state="DISABLED").status_code == 422
    assert browser.post(f"{page}/edit", version="5", url_before=f"{NOBODY}/there").status_code == 422


def test_a_new_secret_is_shown_once(browser: Browser) -> None:
    page = added(browser)
    fields = {"version": "1", "previous_valid_for": "0"}
    first = browser.send("POST", f"{page}/rotate-secret", data=fields)
    assert (len(set(SECRET.findall(first.text))), first.headers["cache-control"]) == (1, "no-store")
    again = browser.send("POST", f"{page}/rotate-secret", data=fields)
    assert (SECRET.findall(again.text), "Nothing was done this time" in again.text) == ([], True)
    assert seen(browser, page)["version"] == 2, "it was not rotated again"
    kept = browser.send("POST", f"{page}/rotate-secret", data={"version": "2", "previous_valid_for": "3600"})
    assert SECRET.search(kept.text)
    assert "The one before still signs" in browser.get(page).text
    both = browser.send("POST", f"{page}/rotate-secret", data={"version": "3", "previous_valid_for": "3600"})
    assert (both.status_code, "rotation-in-progress" in both.text) == (409, True)
    for incomplete in ({"version": "3"}, {"previous_valid_for": "0"}):
        assert browser.send("POST", f"{page}/rotate-secret", data=incomplete).status_code == 422


def test_a_ping_and_its_delivery(browser: Browser, receiver: Receiver) -> None:
    page = added(browser, receiver.url)
    shown = Seen(browser.post(f"{page}/test").text)
    assert {"Ping", "Pending"} <= set(shown.text.split())
    assert '"type": "ping"' in shown.text
    browser.process.deliver()
    [link] = [each for each in Seen(browser.get(page).text).attributes("a", "href") if "/deliveries/" in each]
    shown = Seen(browser.get(link).text)
    assert {"Delivered", "200", "ms"} <= set(shown.text.split())
    again = browser.send("POST", f"{link}/resend")
    assert again.headers["location"] != link
    assert "somebody had it sent again" in browser.get(again.headers["location"]).text


def test_the_log_has_the_filters_of_the_api(browser: Browser, receiver: Receiver) -> None:
    page = added(browser, receiver.url)
    own = [browser.upload(content=pdf(str(number))) for number in range(3)]
    browser.post(f"{page}/test")
    browser.process.deliver()

    def deliveries(path: str) -> int:
        return sum("/deliveries/" in each for each in Seen(browser.get(path).text).attributes("a", "href"))

    counts = {
        query: deliveries(f"{page}?{query}")
        for query in ("", "type=ping&state=", f"document_id={own[0]}", "state=FAILED", "limit=3")
    }
    assert list(counts.values()) == [4, 1, 1, 0, 3]
    shown = Seen(browser.get(f"{page}?limit=3").text)
    [more] = [each["href"] or "" for tag, each in shown.tags if tag == "a" and each.get("rel") == "next"]
    assert deliveries(more) == 1
    assert browser.get(f"{page}?state=NONE").status_code == 422


def test_what_was_answered_is_shown_as_text(browser: Browser, receiver: Receiver) -> None:
    browser.upload(filename=f"{MARKUP}.pdf")
    page = added(browser, receiver.url)
    browser.upload(filename=f"{MARKUP}.pdf", content=pdf("another"))
    browser.process.deliver()
    [link] = [each for each in Seen(browser.get(page).text).attributes("a", "href") if "/deliveries/" in each]
    answer = browser.get(link)
    assert MARKUP in Seen(answer.text).text
    assert "<script>alert" not in answer.text


def test_what_it_was_not_told_is_recovered(browser: Browser) -> None:
    page = added(browser, **{"event.job.dead": "on"})
    added(browser)  # what nobody wants to be told is not kept
    browser.upload()
    browser.post(f"{page}/edit", version="1", url=NOBODY, url_before=NOBODY)
    since, until = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M}" for days in (-1, 1))
    done = browser.post(f"{page}/recover", since=since, until=until)
    assert "1 delivery of what it had missed is on the way" in " ".join(Seen(done.text).text.split())
    assert "complete=" not in done.text
    again = browser.post(f"{page}/recover", since=f"{since}:00", until=f"{until}:00")
    assert "0 deliveries" in Seen(again.text).text
    for wrong in ({"since": since}, {"since": until, "until": since}, {"since": "x", "until": "y"}):
        assert browser.post(f"{page}/recover", **wrong).status_code == 422


def test_delete(browser: Browser) -> None:
    page = added(browser, description="to be deleted")
    assert "to be deleted" in browser.get("/console/webhooks").text
    assert "no webhooks yet" in browser.post(f"{page}/delete").text
    assert browser.get(page).status_code == 404
