"""Jobs of all accounts and the audit trail in the console."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from app.audit.verify import Verification
from app.console.jobs import bulk as bulk_pages
from app.events import events, seals
from app.processing import bulk
from tests.support.console import Browser, Seen, worked
from tests.support.inprocess import Process
from tests.support.person import running

FAILS = {"process": "simulated", "process_params": '{"fail": "permanent", "seconds": 0}'}
WAITS = {"process": "simulated", "process_params": '{"seconds": 0}'}
JOBS = "/console/operators/jobs"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Process]:
    with running(tmp_path, processors="simulated,text") as process:
        yield process


@pytest.fixture
def operator(alone: Process) -> Browser:
    return Browser(alone).promote().sign_in()


@pytest.fixture
def bob(alone: Process) -> Browser:
    return Browser(alone).sign_in()


def job_of(browser: Browser, document_id: str) -> str:
    return str(browser.api(f"/documents/{document_id}")["job_id"])


def form(page: str) -> tuple[str, dict[str, str]]:
    """The action of the page's last form, and its hidden fields."""
    seen = Seen(page)
    hidden = {each["name"] or "": each["value"] or "" for _, each in seen.tags if each.get("type") == "hidden"}
    return seen.attributes("form", "action")[-1], hidden


def test_jobs_are_listed_and_one_is_cancelled(operator: Browser, bob: Browser) -> None:
    job_id = job_of(bob, bob.upload(**WAITS))
    owner = bob.api("/auth/me")["id"]
    listed = operator.get(f"{JOBS}?owner_id={owner}&processor=simulated&state=QUEUED&dead=")
    assert f"{JOBS}/{job_id}" in Seen(listed.text).attributes("a", "href")
    assert "No job matches" in operator.get(f"{JOBS}?dead=true").text
    assert "Cancelled" in Seen(operator.post(f"{JOBS}/{job_id}/cancel").text).text
    again = operator.post(f"{JOBS}/{job_id}/cancel")
    assert (again.status_code, "job-finished" in again.text) == (409, True)
    read = bob.process.http("GET", "/auth/me/activity", token=bob.token()).json()["items"]
    assert {each["data"].get("operation") for each in read} >= {"listAllJobs", "getAnyJob"}


def test_all_that_match_are_counted_and_then_run_again(operator: Browser, bob: Browser) -> None:
    failed = [bob.upload(**FAILS) for _ in range(3)]
    for each in failed:
        worked(bob, each)
    listed = Seen(operator.get(f"{JOBS}?state=FAILED").text)
    [link] = [each for each in listed.attributes("a", "href") if "/retry" in each]
    assert not [each for each in listed.attributes("a", "href") if "/cancel" in each]
    asked = operator.get(link)
    assert "3 jobs can be retried" in Seen(asked.text).text
    assert bob.api(f"/documents/{failed[0]}")["status"] == "FAILED", "only counted"
    action, fields = form(asked.text)
    assert (fields["confirm"], fields["state"]) == ("3", "FAILED")
    assert "3 jobs were retried" in Seen(operator.post(action, **fields).text).text
    assert {bob.api(f"/documents/{each}")["status"] for each in failed} == {"PROCESSING"}


def test_more_than_were_confirmed_are_left_alone(operator: Browser, bob: Browser) -> None:
    for _ in range(2):
        bob.upload(**WAITS)
    refused = operator.post(f"{JOBS}/cancel", state="QUEUED", confirm="1")
    assert (refused.status_code, "more-jobs-match" in refused.text) == (409, True)
    action, fields = form(operator.get(f"{JOBS}/cancel?state=QUEUED&processor=simulated").text)
    assert "2 jobs were cancelled" in Seen(operator.post(action, **fields).text).text
    assert operator.post(action, confirm="many").status_code == 422


def test_of_many_it_is_said_that_they_are_many(
    operator: Browser, bob: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting all of them may take long. What is left after the first part is counted by then."""
    for module in (bulk, bulk_pages):
        monkeypatch.setattr(module, "MAX_BULK", 2)
    waiting = [bob.upload(**WAITS) for _ in range(4)]
    asked = operator.get(f"{JOBS}/cancel")
    assert "Over 2 jobs can be cancelled, 2 at once" in Seen(asked.text).text
    action, fields = form(asked.text)
    done = operator.post(action, **fields)
    assert "2 jobs were cancelled" in Seen(done.text).text
    assert "2 jobs more" in Seen(done.text).text
    action, fields = form(done.text)
    assert "2 jobs were cancelled" in Seen(operator.post(action, **fields).text).text
    assert {bob.api(f"/documents/{each}")["status"] for each in waiting} == {"UPLOADED"}


def test_what_could_not_be_done_is_said(operator: Browser, bob: Browser) -> None:
    for _ in range(3):
        worked(bob, bob.upload(**FAILS))
    here = f"/console/operators/accounts/{bob.api('/auth/me')['id']}"
    operator.post(f"{here}/quota", jobs="2")
    done = Seen(operator.post(f"{JOBS}/retry", dead="false", confirm="3").text).text
    assert "2 jobs were retried. Left as they were: 1 job: Too many unfinished jobs" in " ".join(done.split())


@pytest.mark.parametrize("query", ["retry?state=QUEUED", "cancel?dead=true", "cancel?owner_id=x"])
def test_filters_that_would_be_ignored_are_refused(operator: Browser, query: str) -> None:
    path, _, filters = query.partition("?")
    fields = dict([filters.split("=")])
    for answer in (operator.get(f"{JOBS}/{query}"), operator.post(f"{JOBS}/{path}", confirm="9", **fields)):
        assert answer.status_code == 422
    assert operator.get(f"{JOBS}/{path}?nothing=1").status_code == 422


def test_the_audit_trail_is_read_filtered_and_exported(operator: Browser, bob: Browser) -> None:
    here, owner = "/console/operators/audit", bob.api("/auth/me")["id"]
    bob.upload(filename="theirs.pdf")
    page = Seen(operator.get(f"{here}?user_id={owner}&event=document.uploaded").text)
    assert page.text.count('"event": "document.uploaded"') == 1
    [link] = [each for each in page.attributes("a", "href") if "/export" in each]
    lines = operator.get(link)
    assert [json.loads(each)["event"] for each in lines.text.splitlines()] == ["document.uploaded"]
    assert "attachment" in lines.headers["content-disposition"]
    recorded = operator.api("/audit?event=audit.exported")["items"]
    assert recorded[0]["data"]["filters"] == {"user_id": owner, "event": "document.uploaded"}
    [more] = [each["href"] for _, each in Seen(operator.get(f"{here}?limit=2").text).tags if each.get("rel") == "next"]
    assert operator.get(more or "").status_code == 200
    assert operator.get(f"{here}?ip=nowhere").status_code == 422
    operator.get(JOBS)
    assert ">filters</span>" not in operator.get(f"{here}?event=operator.read&limit=1").text, "there was none"


def test_the_latest_events_are_verified(operator: Browser, bob: Browser, alone: Process) -> None:
    bob.upload()
    alone.tick()
    bob.upload(filename="later.pdf")
    assert "Nothing wrong was found" in operator.get("/console/operators/audit/verify").text
    first = alone.write(lambda conn: conn.scalar(select(events.c.seq).where(events.c.event == "document.uploaded")))
    alone.write(lambda conn: conn.execute(update(events).where(events.c.seq == first).values(actor="user:another")))
    page = Seen(operator.get("/console/operators/audit/verify").text).text
    assert f"event {first}" in page
    assert "was changed" in page


def latest(process: Process, most: int) -> Verification:
    verification = Verification(process.services.db.audit_keys, batch=2)

    async def run(_: Any) -> None:
        await verification.run_latest(process.services.db, most)

    process.operate(run)
    return verification


def test_verification_of_the_latest_events_is_bounded(
    bob: Browser, alone: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "LAG", -1.0)  # so that what was just written is sealed
    for _ in range(3):
        bob.upload()
    unsealed = latest(alone, 2)
    assert (unsealed.events, unsealed.seals, unsealed.wrong) == (2, 0, 0), "nothing is sealed yet"
    for _ in range(3):
        bob.upload()
        alone.tick()
    highest = alone.write(lambda conn: conn.scalar(select(events.c.seq).order_by(events.c.seq.desc()).limit(1)))
    found = latest(alone, 2)
    assert (found.events, found.seals, found.findings) == (2, 2, [])
    whole = latest(alone, 10**6)
    assert (whole.events, whole.seals, whole.wrong) == (highest, 3, 0)
    alone.write(lambda conn: conn.execute(delete(events).where(events.c.seq == highest)))
    assert "missing" in str(latest(alone, 3).findings[0])


def test_the_page_of_a_job_leads_to_its_document_and_account(operator: Browser, bob: Browser) -> None:
    own = bob.upload(**FAILS)
    worked(bob, own)
    page = Seen(operator.get(f"{JOBS}/{job_of(bob, own)}").text)
    found = {re.sub(r".*/operators/(\w+)/[0-9a-f-]{36}$", r"\1", each) for each in page.attributes("a", "href")}
    assert {"documents", "accounts"} <= found
    assert "simulated" in page.text
