"""What operators see in the console: the service's health, accounts, documents, workers and processors."""

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import Counter, Histogram

from app.console.operators.meanings import ALARMS, CHECKS, CHORES, COUNTED, SLOTS
from app.events.failure import Failure
from app.jobs import pauses, transitions
from app.jobs.kinds import Retryable
from app.operators import workload
from app.telemetry import context, counted, metrics
from tests.support.console import Browser, Seen, worked
from tests.support.inprocess import Process
from tests.support.person import running

PAGES = ("health", "accounts", "documents", "jobs", "workers", "processors", "audit", "audit/verify", "audit/export")
FAILS = {"process": "simulated", "process_params": '{"fail": "permanent", "seconds": 0}'}


@pytest.fixture(scope="module")
def operator(process: Process) -> Browser:
    return Browser(process).promote().sign_in()


def noted(browser: Browser, **filters: str) -> list[tuple[str, dict[str, Any]]]:
    """The operations that the audit trail says to have been read, the latest first, and with which filters."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    found = browser.api(f"/audit?event=operator.read&limit=100&{query}")["items"]
    return [(each["data"]["operation"], each["data"]["filters"]) for each in found]


@pytest.mark.parametrize("page", PAGES)
def test_pages_of_operators_are_theirs_alone(ada: Browser, operator: Browser, page: str) -> None:
    refused = ada.get(f"/console/operators/{page}")
    assert (refused.status_code, "insufficient-scope" in refused.text) == (403, True)
    assert "/console/operators" not in str(Seen(ada.get("/console").text).attributes("a", "href"))
    assert operator.get(f"/console/operators/{page}").status_code == 200


@pytest.mark.parametrize(
    "action",
    [
        *("accounts/{}/change", "accounts/{}/sign-out", "accounts/{}/quota"),
        *("documents/{}/hold", "documents/{}/release", "documents/{}/content", "documents/{}/result"),
        *("jobs/{}/cancel", "jobs/retry", "jobs/cancel", "processors/text/pause", "processors/text/resume"),
    ],
)
def test_actions_of_operators_are_theirs_alone(ada: Browser, operator: Browser, action: str) -> None:
    path = f"/console/operators/{action.format(uuid4())}"
    assert ada.send("POST", path, data={"reason": "x"}).status_code == 403
    if "{}" in action:
        fields = {} if action.endswith(("quota", "change")) else {"reason": "x"}
        assert operator.send("POST", path, data=fields or {"nothing": ""}).status_code == 404


def test_health_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, processors="simulated,text") as process:
        browser = Browser(process).promote().sign_in()
        assert "All is well" in Seen(browser.get("/console/operators/health").text).text
        process.tick()
        browser.post("/console/operators/processors/text/pause", reason="It fills the disk.")
        process.pull()
        process.announce()
        text = Seen(browser.get("/console/operators/health").text).text
        assert "somebody should look into one thing" in text
        assert "It fills the disk." in text
        assert ALARMS["paused"].remedy in text
        assert context.worker() in text


def test_everything_has_a_meaning(process: Process) -> None:
    services = process.services
    assert set(services.alarms) == set(ALARMS)
    assert {*services.checks, "background", "shutdown"} == set(CHECKS)
    assert set(services.upkeep.shared) <= set(CHORES)
    assert set(services.usages) == set(SLOTS)


def test_health_says_what_its_process_has_counted(operator: Browser) -> None:
    for about in COUNTED.values():
        assert isinstance(about.counter, Counter)
    metrics.storage_errors.labels("full").inc(3)
    metrics.leases_lost.inc(2)
    metrics.loop_lag.observe(0.02)
    text = " ".join(Seen(operator.get("/console/operators/health").text).text.split())
    assert re.search(r"Storage errors \d+full: \d+", text)
    assert re.search(r"Leases lost [2-9]", text)
    assert re.search(r"Streams \d+ of \d+", text)
    assert "late by 50 ms at the most" in text


def test_the_share_of_a_histogram() -> None:
    histogram = Histogram("x", "x", buckets=(0.1, 1.0), registry=None)
    assert counted.within(histogram, 0.99) is None
    for seconds in [*[0.05] * 98, 0.5, 7]:
        histogram.observe(seconds)
    assert [counted.within(histogram, share) for share in (0.98, 0.99, 1)] == [0.1, 1.0, math.inf]


def test_accounts_are_found_and_their_limits_set(process: Process, operator: Browser) -> None:
    bob = Browser(process).sign_in()
    page = Seen(operator.get(f"/console/operators/accounts?search={bob.email[:20]}").text)
    [link] = [each for each in page.attributes("a", "href") if re.search("accounts/[0-9a-f-]{36}$", each)]
    operator.post(f"{link}/quota", bytes="1000000", jobs="0", documents="")
    assert bob.api("/auth/me")["quota"]["bytes"] == 1_000_000
    shown = Seen(operator.get(link).text)
    own = {each["name"]: each.get("value") for tag, each in shown.tags if tag == "input" and "pattern" in each}
    assert own == {"bytes": "1000000", "documents": "", "announced": "", "jobs": "0"}
    wrong = operator.post(f"{link}/quota", bytes="many")
    assert (wrong.status_code, "Bytes of files" in wrong.text) == (422, True)
    assert ("listAccounts", {}) in noted(operator), "without what was searched for"
    assert ("getAccount", {}) in noted(operator, user_id=link.rpartition("/")[2])


def test_an_account_is_disabled_enabled_promoted_and_signed_out(process: Process, operator: Browser) -> None:
    bob = Browser(process).sign_in()
    here = f"/console/operators/accounts/{bob.api('/auth/me')['id']}"
    assert "Disabled" in operator.post(f"{here}/change", active="false").text
    assert bob.get("/console").status_code == 303
    operator.post(f"{here}/change", active="true")
    assert bob.sign_in().get("/console").status_code == 200
    operator.post(f"{here}/sign-out")
    assert bob.get("/console").status_code == 303
    operator.post(f"{here}/change", role="operator")
    assert bob.sign_in().get("/console/operators/health").status_code == 200
    assert operator.post(f"{here}/change", role="king").status_code == 422


def test_operators_cannot_shut_themselves_out(operator: Browser) -> None:
    here = f"/console/operators/accounts/{operator.api('/auth/me')['id']}"
    for change in ({"active": "false"}, {"role": "user"}):
        refused = operator.post(f"{here}/change", **change)
        assert (refused.status_code, "own-account" in refused.text) == (409, True)


def test_documents_of_all_are_seen_and_held(operator: Browser, process: Process) -> None:
    bob = Browser(process).sign_in()
    own, bob_id = bob.upload(filename="theirs.pdf"), bob.api("/auth/me")["id"]
    listed = operator.get(f"/console/operators/documents?owner_id={bob_id}")
    assert "theirs.pdf" in listed.text
    here = f"/console/operators/documents/{own}"
    assert "document: uploaded" in Seen(operator.get(here).text).text
    assert noted(operator, user_id=bob_id)[:3] == [
        ("getAnyTimeline", {"document_id": own}),
        ("getAnyDocument", {"document_id": own}),
        ("listAllDocuments", {"owner_id": bob_id}),
    ]
    assert "Case 117" in operator.post(f"{here}/hold", reason="Case 117").text
    assert bob.post(f"/console/documents/{own}/delete").status_code == 409
    assert "Case 117" not in Seen(operator.post(f"{here}/release").text).attributes("input", "value")
    assert operator.post(f"{here}/hold").status_code == 422


def test_reading_is_noted_whatever_headers_say(operator: Browser, ada: Browser) -> None:
    before = len(noted(operator))
    for page in ("documents", "jobs", "accounts", f"documents/{ada.upload()}"):
        assert operator.get(f"/console/operators/{page}", ("HX-Request", "true")).status_code == 200
    assert len(noted(operator)) == before + 5


def test_only_pages_that_tell_nothing_of_accounts_are_live(operator: Browser) -> None:
    live = {page for page in PAGES[:7] if 'id="feed"' in operator.get(f"/console/operators/{page}").text}
    assert live == {"health", "workers", "processors"}
    before = len(noted(operator))
    for page in live:
        operator.get(f"/console/operators/{page}")
    assert len(noted(operator)) == before


@pytest.fixture
def open_process(tmp_path: Path) -> Iterator[Process]:
    with running(tmp_path, operator_content=True, processors="simulated,text") as process:
        yield process


def test_content_is_sent_for_a_reason_that_the_owner_sees(open_process: Process) -> None:
    bob, operator = Browser(open_process).sign_in(), Browser(open_process).promote().sign_in()
    own = bob.upload(process="simulated", process_params='{"seconds": 0}')
    worked(bob, own)
    here = f"/console/operators/documents/{own}"
    sent = operator.post(f"{here}/content", reason="A complaint")
    assert (sent.status_code, sent.content[:5]) == (200, b"%PDF-")
    assert sent.headers["content-disposition"].startswith("attachment")
    assert operator.post(f"{here}/result", reason="Another").json()["processor"] == "simulated"
    timeline = Seen(bob.get(f"/console/documents/{own}").text).text
    assert {"A complaint", "Another"} <= {each.strip() for each in re.split("reason|\n", timeline)}
    assert [each[0] for each in noted(operator, user_id=bob.api("/auth/me")["id"])] == ["getAnyResult", "getAnyContent"]
    for reason in ({}, {"reason": "  "}, {"reason": "a\u200bb"}):
        assert operator.post(f"{here}/content", **reason).status_code in (403, 422)
    assert len(noted(operator)) == 2


def test_content_is_closed_unless_a_setting_opens_it(operator: Browser, ada: Browser) -> None:
    here = f"/console/operators/documents/{ada.upload()}"
    assert "neither files nor results" in operator.get(here).text
    refused = operator.post(f"{here}/content", reason="x")
    assert (refused.status_code, "break-glass-disabled" in refused.text) == (403, True)


def test_workers_show_queues_that_are_idle_and_how_much_they_can_take(tmp_path: Path) -> None:
    with running(tmp_path, processors="simulated,text", job_concurrency=3) as process:
        operator, here = Browser(process).promote().sign_in(), "/console/operators/workers"
        process.announce()
        assert row(operator.get(here).text, "text") == "text none 3 – Pause text"
        fields = {"next": "operators/workers", "reason": "It fills the disk."}
        paused = operator.send("POST", "/console/operators/processors/text/pause", data=fields)
        assert paused.headers["location"] == here
        assert row(operator.get(here).text, "text").endswith("‖ Paused Resume text")
        process.write(lambda conn: pauses.begin(conn, "process/gone@", "It is old."))
        assert row(operator.get(here).text, "gone") == "gone none unknown – ‖ Paused Resume gone"
        operator.send("POST", "/console/operators/processors/gone/resume", data={"next": "operators/workers"})
        assert "gone" not in operator.get(here).text


def row(page: str, name: str) -> str:
    """The text of a row of the queues, without the form to pause it."""
    found = re.search(rf'<tr>\n<th scope="row">{name}</th>.*?(?=</tr>|</summary>)', page, re.DOTALL)
    assert found
    return " ".join(Seen(found[0].replace("<", " <")).text.split())


def test_an_attempt_is_under_way_since_it_began(process: Process) -> None:
    """Not since the first attempt, and not since the lease was renewed."""
    bob = Browser(process).sign_in()
    own = bob.upload(process="simulated", process_params='{"seconds": 0}')
    [first] = [each for each in process.claim(10) if str(each.document_id) == own]
    assert process.settle(first, Retryable(Failure(code="busy", detail="It was busy."), 0.0))
    [second] = [each for each in process.claim(10) if each.id == first.id]
    time.sleep(0.01)
    assert process.write(transitions.heartbeat, second, 30.0, 0.5)
    [held] = [each for each in process.write(workload.held) if each.job_id == first.id]
    moments = [first.locked_at, second.locked_at, held.begun, held.heartbeat]
    assert moments == sorted(moments, key=str)
    assert held.begun != held.heartbeat
    bob.post(f"/console/jobs/{first.id}/cancel")


def test_workers_show_what_they_hold(process: Process, operator: Browser) -> None:
    bob = Browser(process).sign_in()
    own = bob.upload(process="simulated", process_params='{"seconds": 0}')
    process.announce()
    [job] = [each for each in process.claim(10) if str(each.document_id) == own]
    page = operator.get("/console/operators/workers").text
    assert {f"/console/operators/jobs/{job.id}", f"/console/operators/documents/{own}"} <= set(
        Seen(page).attributes("a", "href")
    )
    assert f"{job.locked_by}" in Seen(page).text
    bob.post(f"/console/jobs/{job.id}/cancel")


def test_processors_show_how_their_jobs_went(tmp_path: Path) -> None:
    with running(tmp_path, processors="simulated,text") as process:
        bob, operator = Browser(process).sign_in(), Browser(process).promote().sign_in()
        assert "No job has ended lately" in operator.get("/console/operators/processors").text
        worked(bob, bob.upload(process="simulated", process_params='{"seconds": 0}'))
        worked(bob, failed := bob.upload(**FAILS))
        page = Seen(operator.get("/console/operators/processors").text)
        assert "50.0 %" in page.text
        assert f"/console/operators/jobs/{bob.api(f'/documents/{failed}')['job_id']}" in page.attributes("a", "href")
        assert "Resume" in operator.post("/console/operators/processors/simulated/pause", reason="r1").text
        assert "r1" not in operator.post("/console/operators/processors/simulated/resume").text
        assert operator.post("/console/operators/processors/none/pause").status_code == 404


def test_quantiles_are_of_the_nearest_rank() -> None:
    assert workload.Quantiles.of([None]) is None
    assert workload.Quantiles.of([None, 3.0, -0.1]) == (0.0, 3.0, 3.0)
    assert workload.Quantiles.of(map(float, range(1, 101))) == (50.0, 95.0, 99.0)


def test_the_rate_tells_no_more_than_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as process:
        bob = Browser(process).sign_in()
        for _ in range(3):
            worked(bob, bob.upload(process="simulated", process_params='{"seconds": 0}'))
        whole = process.write(workload.records)["simulated"]
        assert (whole.jobs, round(whole.per_minute, 1)) == (3, 0.6)
        monkeypatch.setattr(workload, "RECENT_JOBS", 2)
        part = process.write(workload.records)["simulated"]
        assert part.jobs == 2
        assert part.per_minute > 2, "over the time since the first of the two"
        monkeypatch.setattr(workload, "RECENT_EVENTS", 0)
        assert process.write(workload.records) == {}
