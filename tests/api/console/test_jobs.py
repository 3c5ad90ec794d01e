"""Jobs in the console: the list, those that gave up, each one, and all that match."""

import re
from pathlib import Path
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest

from app.documents import listing
from app.processing import kind
from tests.support.console import Browser, Seen, worked
from tests.support.factories import pdf
from tests.support.inprocess import Process

FAILING = '{"fail": "permanent", "seconds": 0}'


@pytest.fixture
def browser(process: Process) -> Browser:
    return Browser(process).sign_in()


def failed(browser: Browser, name: str = "report.pdf") -> str:
    """The id of a document whose job has failed."""
    own = browser.upload(filename=name, content=pdf(name), process="simulated", process_params=FAILING)
    worked(browser, own)
    return own


def queued(browser: Browser) -> str:
    """The id of a document whose job waits."""
    return browser.upload(process="simulated", process_params='{"seconds": 0}')


def state(browser: Browser, document_id: str) -> str:
    status: str = browser.api(f"/documents/{document_id}")["status"]
    return status


def form(page: str, action: str) -> dict[str, str]:
    """The fields of the one form of a page that is sent there."""
    seen, inside, found = Seen(page), False, list[dict[str, str]]()
    for tag, each in seen.tags:
        if tag == "form":
            inside = each.get("action") == action
            found += [{}] if inside else []
        elif tag == "input" and inside:
            found[-1][each["name"] or ""] = each["value"] or ""
    [fields] = found
    return fields


def test_the_list_has_the_filters_of_the_api_and_the_names_of_documents(browser: Browser) -> None:
    first = failed(browser, "first.pdf")
    second = browser.upload(filename="second.pdf", content=pdf("text"), process="text")
    worked(browser, second)
    page = Seen(browser.get("/console/jobs").text)
    assert re.findall(r"\w+\.pdf(?=\w)", page.text) == ["second.pdf", "first.pdf"]
    assert {f"/console/documents/{each}" for each in (first, second)} <= set(page.attributes("a", "href"))
    for query, shown in (
        ("state=FAILED", "first"),
        ("processor=text", "second"),
        (f"document_id={first}&state=&processor=", "first"),
        ("limit=1", "second"),
    ):
        assert re.findall(r"(\w+)\.pdf(?=\w)", Seen(browser.get(f"/console/jobs?{query}").text).text) == [shown]
    [more] = [
        each["href"]
        for _, each in Seen(browser.get("/console/jobs?limit=1").text).tags
        if "rel" in each and each["rel"] == "next"
    ]
    assert "first.pdf" in browser.get(more or "").text
    assert "There are no dead letters" in browser.get("/console/jobs?dead=true").text
    assert browser.get("/console/jobs?state=NONE").status_code == 422


def test_those_that_gave_up_have_a_page_and_are_retried_from_there(browser: Browser) -> None:
    own = browser.upload(process="simulated", process_params='{"fail": "transient", "seconds": 0}')
    job_id = browser.api(f"/documents/{own}")["job_id"]
    with patch.object(kind, "uniform", lambda _low, _high: 0.0):  # it is tried again at once
        browser.process.work(UUID(job_id))
    page = browser.get("/console/jobs?dead=true")
    assert "dead letter" in Seen(page.text.partition("<table")[2]).text
    fields = form(page.text, f"/console/jobs/{job_id}/retry")
    answer = browser.send("POST", f"/console/jobs/{job_id}/retry", data=fields)
    assert answer.headers["location"] == "/console/jobs?dead=true"
    assert state(browser, own) == "PROCESSING"
    browser.post(f"/console/jobs/{job_id}/retry", **fields)
    assert len(browser.api(f"/jobs?document_id={own}")["items"]) == 2, "the same work is under way"


def test_one_is_cancelled_from_the_list(browser: Browser) -> None:
    own = queued(browser)
    job_id = browser.api(f"/documents/{own}")["job_id"]
    fields = form(browser.get("/console/jobs?state=QUEUED").text, f"/console/jobs/{job_id}/cancel")
    answer = browser.send("POST", f"/console/jobs/{job_id}/cancel", data=fields)
    assert answer.headers["location"] == "/console/jobs?state=QUEUED"
    assert state(browser, own) == "UPLOADED"


def test_all_that_match_are_counted_and_then_retried(browser: Browser) -> None:
    own = [failed(browser) for _ in range(3)]
    counted = browser.get("/console/jobs/retry?processor=simulated&state=FAILED")
    text = Seen(counted.text).text
    assert "3 jobs can be retried" in text
    assert re.search(
        r"StateFailed\s+ProcessorSimulated\s+Created before\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text, re.IGNORECASE
    ), text
    assert [state(browser, each) for each in own] == ["FAILED"] * 3, "only counted"
    fields = form(counted.text, "/console/jobs/retry")
    done = browser.post("/console/jobs/retry", **fields)
    assert "3 jobs were retried" in Seen(done.text).text
    assert [state(browser, each) for each in own] == ["PROCESSING"] * 3
    for each in own:
        worked(browser, each)
    repeated = browser.post("/console/jobs/retry", **fields)
    assert "0 jobs were retried" in Seen(repeated.text).text, "what came of it was not there when it was counted"


def test_no_more_are_retried_than_were_counted(browser: Browser) -> None:
    own = [failed(browser) for _ in range(2)]
    fields = form(browser.get("/console/jobs/retry").text, "/console/jobs/retry")
    refused = browser.post("/console/jobs/retry", **fields | {"confirm": "1"})
    assert (refused.status_code, "more-jobs-match" in refused.text) == (409, True)
    later = failed(browser)
    assert "2 jobs were retried" in Seen(browser.post("/console/jobs/retry", **fields).text).text
    assert [state(browser, each) for each in (*own, later)] == ["PROCESSING", "PROCESSING", "FAILED"]
    for wrong in ({"confirm": "x"}, {"created_before": "x"}, {"cursor": "x"}, {"state": "RUNNING"}):
        assert browser.post("/console/jobs/retry", **fields | wrong).status_code in (400, 422), wrong


def test_all_that_match_are_cancelled(browser: Browser) -> None:
    own = [queued(browser) for _ in range(2)]
    counted = browser.get("/console/jobs/cancel?state=QUEUED")
    assert "2 jobs can be cancelled" in Seen(counted.text).text
    done = browser.post("/console/jobs/cancel", **form(counted.text, "/console/jobs/cancel"))
    assert "2 jobs were cancelled" in Seen(done.text).text
    assert [state(browser, each) for each in own] == ["UPLOADED"] * 2
    assert "no job to cancel" in Seen(browser.get("/console/jobs/cancel").text).text
    assert browser.get("/console/jobs/cancel?dead=true").status_code == 422


def test_what_was_skipped_says_why(tmp_path: Path) -> None:
    process = Process(tmp_path, processors="simulated", quota_jobs=2)
    browser = Browser(process).sign_in()
    for _ in range(3):
        failed(browser)
    fields = form(browser.get("/console/jobs/retry").text, "/console/jobs/retry")
    text = " ".join(Seen(browser.post("/console/jobs/retry", **fields).text).text.split())
    assert "2 jobs were retried." in text
    assert "1 job: Too many unfinished jobs" in text
    process.kill()


def test_the_documents_of_others_have_no_name(browser: Browser) -> None:
    own = UUID(browser.upload())
    assert browser.process.write(listing.some, UUID(browser.api("/auth/me")["id"]), {own}).keys() == {own}
    assert browser.process.write(listing.some, uuid4(), {own}) == {}


@pytest.mark.parametrize("path", ["retry", "cancel"])
def test_forged_fields_reach_no_other_account(browser: Browser, path: str) -> None:
    victim = failed(browser) if path == "retry" else queued(browser)
    before = state(browser, victim)
    mallory = Browser(browser.process).sign_in()
    owner = browser.api("/auth/me")["id"]
    for forged in ({"owner_id": owner}, {"document_id": victim}, {"filter": owner, "filter.owner_id": owner}):
        answer = mallory.post(f"/console/jobs/{path}", confirm="1000", created_before="2999-01-01T00:00:00Z", **forged)
        assert " 0 jobs were" in f" {' '.join(Seen(answer.text).text.split())}", forged
    assert mallory.get(f"/console/jobs/{path}?owner_id={owner}").status_code == 422
    assert "There is no job" in mallory.get(f"/console/jobs/{path}?document_id={victim}").text
    assert state(browser, victim) == before
