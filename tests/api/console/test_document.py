"""The page of one document: what is drawn of its jobs, how results are shown, and what can be done with its files."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.console.documents import markdown, timeline
from app.console.documents.timeline import Picture
from app.events import TimelineItem
from app.events.catalogue import Failure
from app.jobs.kinds import Failed, Released, Retryable
from app.jobs.models import JobState
from app.jobs.schemas import Job
from tests.support import wordprocessing
from tests.support.console import Browser, Seen, worked
from tests.support.factories import DOCX_TYPE, PDF_TYPE, pdf
from tests.support.inprocess import Process

BEGIN = datetime(2026, 11, 30, 12, tzinfo=UTC)
ERROR = {"code": "broken", "detail": "It broke."}


def happened(*story: tuple[float, str, dict[str, Any]]) -> tuple[Job, list[TimelineItem]]:
    """A job that ended, and its events: seconds after it was accepted, what, and more about that."""
    job_id = uuid4()
    items = [
        TimelineItem(
            id=uuid4(),
            event=f"job.{event}",
            at=BEGIN + timedelta(seconds=seconds),
            actor="worker:a",
            request_id=None,
            job_id=job_id,
            data={"attempt": 1, "fence": 1, **data},
        )
        for seconds, event, data in ((0, "queued", {}), *story)
    ]
    live = story[-1][1] in ("started", "retried", "released", "lease_lost") if story else True
    job = Job(
        id=job_id,
        document_id=None,
        file_number=1,
        kind="process",
        processor="text",
        params={},
        state=JobState.RUNNING if live else JobState.FAILED,
        attempt=1,
        max_attempts=5,
        progress=0,
        error=None,
        dead=False,
        run_at=BEGIN,
        created_at=BEGIN,
        started_at=None,
        finished_at=None,
        result_url=None,
    )
    return job, items


def drawn(*story: tuple[float, str, dict[str, Any]], now: float = 0) -> Picture:
    job, items = happened(*story)
    picture = timeline.pictures([job], items, BEGIN + timedelta(seconds=now))[job.id]
    ends = [0.0, *(bar.x + bar.width for bar in picture.bars)]
    assert [bar.x for bar in picture.bars] == pytest.approx(ends[:-1])
    assert all(bar.width > 0 and bar.seconds >= 0 for bar in (*picture.bars, *picture.stages))
    assert ends[-1] == pytest.approx(100 if picture.bars else 0)
    return picture


def looks(picture: Picture) -> list[tuple[str, float]]:
    return [(str(bar.look), round(bar.seconds, 3)) for bar in picture.bars]


def test_a_retry_after_a_pause_and_a_place_in_the_queue() -> None:
    picture = drawn(
        (1, "started", {}),
        (3, "retried", {"delay": 4.0, "error": ERROR}),
        (8, "started", {"attempt": 2}),
        (9, "lease_lost", {"attempt": 2}),
        (9, "started", {"attempt": 3}),
        (10, "failed", {"attempt": 3, "dead": True, "error": ERROR}),
    )
    assert looks(picture) == [
        *(("queued", 1), ("failed", 2), ("paused", 4), ("queued", 1)),
        *(("lost", 1), ("failed", 1)),
    ]
    assert [(each.number, each.error, each.delay) for each in picture.attempts] == [
        (1, ERROR, 4.0),
        (2, None, None),
        (3, ERROR, None),
    ]
    assert (picture.now, picture.seconds) == (None, 10)
    assert picture.bars[1].width == pytest.approx(20)


def test_a_short_attempt_after_a_long_wait_is_seen() -> None:
    picture = drawn((7200, "started", {}), (7200.005, "succeeded", {}))
    assert looks(picture) == [("queued", 7200), ("succeeded", 0.005)]
    assert 1 < picture.bars[1].width < 2


def test_no_time_goes_backwards() -> None:
    picture = drawn((-5, "started", {}), (-7, "retried", {"delay": 1.0, "error": ERROR}), (-9, "cancelled", {}))
    assert looks(picture) == [("failed", 0)]
    running = drawn((5, "started", {}), now=-60)
    assert looks(running) == [("queued", 5), ("running", 0)]


def test_where_it_stands_now() -> None:
    assert drawn(now=3).now == pytest.approx(100)
    running = drawn((1, "started", {}), now=4)
    assert (looks(running), running.now) == ([("queued", 1), ("running", 3)], pytest.approx(100))
    job, items = happened((0, "started", {}), (1, "retried", {"delay": 9.0, "error": ERROR}))
    job = job.model_copy(update={"state": JobState.QUEUED, "run_at": BEGIN + timedelta(seconds=10)})
    paused = timeline.pictures([job], items, BEGIN + timedelta(seconds=5.5))[job.id]
    assert (looks(paused), paused.now) == ([("failed", 1), ("paused", 9)], pytest.approx(55))


def test_stages_are_within_their_attempt() -> None:
    stage = {"version": "1", "cached": False, "skipped": False}
    picture = drawn(
        (10, "started", {}),
        (13, "stage_finished", stage | {"stage": "text", "seconds": 3}),
        (13, "stage_finished", stage | {"stage": "ocr", "seconds": 0, "skipped": True}),
        (17, "stage_failed", {"version": "1", "stage": "keywords", "seconds": 99, "error": ERROR}),
        (20, "failed", {"dead": False, "error": ERROR}),
    )
    assert [(each.name, str(each.look)) for each in picture.stages] == [
        ("text", "succeeded"),
        ("ocr", "skipped"),
        ("keywords", "failed"),
    ]
    attempt, last = picture.bars[-1], picture.stages[-1]
    assert picture.stages[0].x == attempt.x
    assert last.x + last.width < attempt.x + attempt.width
    assert picture.attempts[0].stages[-1].seconds == 4


def test_many_attempts_are_not_all_drawn() -> None:
    story = [each for n in range(100) for each in ((n, "started", {}), (n + 0.5, "released", {}))]
    picture = drawn(*story, now=100)
    assert (len(picture.bars), picture.cut, len(picture.attempts)) == (40, True, 100)


def test_a_job_whose_beginning_is_not_known_is_not_drawn() -> None:
    job, items = happened((1, "started", {}), (2, "failed", {"dead": False, "error": ERROR}))
    assert timeline.pictures([job], items[1:], BEGIN) == {}
    assert timeline.legend([]) == {}


def pictures(page: str) -> list[str]:
    """What is said of each picture, and of each bar of it."""
    return [
        " ".join(re.findall(r"<title>([^<]*)", each))
        for each in re.findall(r'<svg class="picture".*?</svg>', page, re.DOTALL)
    ]


def test_why_each_attempt_failed(process: Process, ada: Browser) -> None:
    own = ada.upload(process="simulated")
    here = f"/console/documents/{own}"
    assert "waits in the queue" in pictures(ada.get(here).text)[0]
    [lost] = process.claim(1, lease=-1.0)
    process.tick()
    [job] = process.claim(1)
    assert job.id == lost.id
    assert '<line class="now"' in ada.get(here).text
    process.settle(job, Retryable(Failure(code="busy", detail="It was <b>busy</b>."), 0.0))
    [job] = process.claim(1)
    process.settle(job, Released())
    [job] = process.claim(1)
    process.settle(job, Failed(Failure(code="broken", detail="It broke.")))
    page = ada.get(here)
    [said] = pictures(page.text)
    assert said.startswith("simulated: failed after")
    assert [word for word in ("fell silent", "failed", "was ended", "queue") if word not in said] == []
    text = " ".join(Seen(page.text).text.split())
    told = (
        "the worker fell silent after",
        "failed after",
        "busy It was <b>busy</b>.",
        "was ended from",
        "broken It broke.",
    )
    assert re.search(".*".join(map(re.escape, told)), text), text
    assert 'fill="url(#hatched)"' in page.text
    assert '<line class="now"' not in page.text


def test_a_worker_that_fell_silent_for_the_last_time(tmp_path: Path) -> None:
    process = Process(tmp_path, processors="simulated", job_max_tries=1)
    browser = Browser(process).sign_in()
    own = browser.upload(process="simulated")
    [_] = process.claim(1, lease=-1.0)
    process.tick()
    page = browser.get(f"/console/documents/{own}").text
    jobs = Seen(page[page.index('id="jobs"') : page.index('id="process"')]).text
    assert "lease-lost The worker fell silent on the last attempt." in jobs
    process.kill()


def test_an_ad_hoc_pipeline_is_drawn_and_tried_again(process: Process, ada: Browser) -> None:
    own = ada.upload()
    here = f"/console/documents/{own}"
    params = {"simulated": {"seconds": 0, "fail": "permanent"}}
    asked = {"pipeline": ["text", "simulated"], "params": params}
    process.http("POST", f"/documents/{own}/process", token=ada.token(), json=asked)
    worked(ada, own)
    page = ada.get(here)
    [said] = pictures(page.text)
    assert ("text succeeded" in said, "simulated failed" in said) == (True, True), said
    [retry] = [each for each in Seen(page.text).attributes("form", "action") if each.endswith("/retry")]
    again = ada.post(retry)
    assert again.text.count('class="job panel"') == 2
    job = ada.api(f"/jobs/{ada.api(f'/documents/{own}')['job_id']}")
    assert (job["processor"], job["params"]["simulated"]["fail"]) == ("pipeline", "permanent")
    assert not [each for each in Seen(again.text).attributes("form", "action") if each.endswith("/retry")]
    assert ada.post(retry).status_code == 200  # this very work is running
    worked(ada, own)


def test_markdown_is_shown_as_what_it_says(ada: Browser) -> None:
    form = {"data": {"process": "text", "process_params": '{"format": "markdown"}'}}
    file = ("all.docx", wordprocessing.everything(), DOCX_TYPE)
    answer = ada.send("POST", "/console/documents", **form, files={"file": file})
    own = answer.headers["location"].rpartition("/")[2]
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}").text
    shown = page[page.index('class="document"') : page.index('-text" hidden>')]
    assert re.search(r"<h4>\s*Annual report", shown)
    assert {
        "<h5>",
        "<ol start=",
        "<ul>",
        '<th scope="col">',
        "<strong>",
        "<em>",
        'rel="noopener noreferrer nofollow"',
    } <= set(re.findall(r"<h5>|<ol start=|<ul>|<th scope=\"col\">|<strong>|<em>|rel=\"[a-z ]*\"", shown))


def test_markdown_of_strangers() -> None:
    [paragraph] = markdown.blocks('[a](javascript:alert(1)) [b](https://x.example/"onclick=) <b>c</b> **d')
    assert [span.link for span in paragraph.line if span.link] == ['https://x.example/"onclick=']
    assert "".join(span.text for span in paragraph.line) == "[a](javascript:alert(1)) b <b>c</b> **d"
    [code] = markdown.blocks("```\n# a\n")
    assert (code.kind, code.text) == ("code", "# a\n")
    deep = "\n".join("  " * depth + "- a" for depth in range(50))
    assert markdown.blocks(deep)[0].kind == "list"
    assert [each.number for each in markdown.blocks("### a\n# b\n##### c")] == [1, 1, 2]
    table = markdown.blocks("| a | b |\n| --- | --- |\n| **1** \\| 2 |")[0]
    assert [["".join(span.text for span in cell) for cell in row] for row in table.rows] == [["a", "b"], ["1 | 2"]]
    kinds = [each.kind for each in markdown.blocks("a\n- b\n\nc\n\n***\nd")]
    assert kinds == ["paragraph", "list", "paragraph", "rule", "paragraph"]
    broken = markdown.blocks("a\\\nb  \nc\nd")[0]
    assert [span.text for span in broken.line] == ["a", "", "b", "", "c d"]


def test_lists_of_objects_are_tables(ada: Browser) -> None:
    own = ada.upload(content=pdf("Invoice of words"), process="text")
    worked(ada, own)
    ada.post(f"/console/documents/{own}/process", processor="keywords")
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}").text
    assert re.search(r"<th scope=\"col\">word</th>\t<th scope=\"col\">count</th>", page)
    assert re.search(r"<td>Invoice</td>\t<td>1</td>", page)
    copied = Seen(page).attributes("button", "data-copy")
    assert len(copied) > 3
    assert set(copied) <= {each["id"] for _, each in Seen(page).tags if "id" in each}


def sent(browser: Browser, path: str, content: bytes, name: str = "new.pdf") -> Any:
    return browser.send("POST", path, files={"file": (name, content, PDF_TYPE)})


def test_files_are_replaced_labelled_restored_and_deleted(ada: Browser) -> None:
    own = ada.upload(content=pdf("first words"), process="text")
    worked(ada, own)
    here = f"/console/documents/{own}"
    version = ada.api(f"/documents/{own}")["version"]
    assert sent(ada, f"{here}/replace?version=1", pdf("x")).status_code == 412
    assert sent(ada, f"{here}/replace?version={version}", b"none").status_code == 415
    answer = sent(ada, f"{here}/replace?version={version}", pdf("second words"))
    assert answer.headers["location"] == here
    document = ada.api(f"/documents/{own}")
    assert (document["filename"], document["file_number"], document["status"]) == ("new.pdf", 2, "UPLOADED")
    page = ada.get(here)
    assert f"{here}/files/1" in Seen(page.text).attributes("a", "href")
    assert "There are no results yet" in page.text
    previous = ada.get(f"{here}/files/1").text
    assert "first words" in Seen(previous).text
    [whole] = [each for each in Seen(previous).attributes("a", "href") if each.endswith("/results/text?file=1")]
    assert ada.get(whole).json()["file_number"] == 1
    labelled = ada.post(f"{here}/files/1/edit", label="signed", keep="on").text
    assert ("signed" in Seen(labelled).text, "checked" in labelled) == (True, True)
    cleared = ada.post(f"{here}/files/1/edit", label="").text
    assert ("signed" in Seen(cleared).text, "checked" in cleared) == (False, False)
    assert ada.post(f"{here}/files/1/edit", label="x" * 101).status_code == 422
    assert ada.post(f"{here}/files/1/restore", version="1").status_code == 412
    ada.post(f"{here}/files/1/restore", version=str(document["version"]))
    assert ada.api(f"/documents/{own}")["file_number"] == 3
    assert ada.post(f"{here}/files/3/delete").status_code == 409
    assert f"{here}/files/1" not in ada.post(f"{here}/files/1/delete").text
    assert ada.get(f"{here}/files/1").status_code == 404


def test_what_webhooks_are_told_of_it(process: Process) -> None:
    browser = Browser(process).sign_in()
    own = browser.upload()
    assert 'id="webhooks"' not in browser.get(f"/console/documents/{own}").text
    body = {"url": "https://example.com/told", "event_types": ["document.processing"]}
    hook = process.http("POST", "/webhooks", token=browser.token(), json=body).json()["id"]
    browser.post(f"/console/documents/{own}/process", processor="simulated", params='{"seconds": 0}')
    told = browser.api(f"/webhooks/{hook}/deliveries")["items"][0]["id"]
    page = Seen(browser.get(f"/console/documents/{own}").text)
    assert f"/console/webhooks/{hook}/deliveries/{told}" in page.attributes("a", "href")
    assert "document: processing" in page.text
    worked(browser, own)


def test_parents_and_children(ada: Browser) -> None:
    own = ada.upload(content=pdf("page", pages=2), filename="whole.pdf", process="split")
    worked(ada, own)
    [child, _] = [each["id"] for each in ada.api(f"/documents/{own}/children")["items"]]
    assert f"/console/documents/{child}" in Seen(ada.get(f"/console/documents/{own}").text).attributes("a", "href")
    page = Seen(ada.get(f"/console/documents/{child}").text)
    assert (f"/console/documents/{own}" in page.attributes("a", "href"), "whole.pdf" in page.text) == (True, True)
    ada.post(f"/console/documents/{own}/delete")
    orphan = Seen(ada.get(f"/console/documents/{child}").text)
    assert (f"/console/documents/{own}" in orphan.attributes("a", "href"), "which is deleted" in orphan.text) == (
        False,
        True,
    )


def test_a_document_in_the_trash_has_a_page(ada: Browser) -> None:
    own = ada.upload(filename="thrown away.pdf")
    here = f"/console/documents/{own}"
    ada.post(f"{here}/delete")
    page = ada.get(here)
    assert (page.status_code, "In the trash" in page.text) == (200, True)
    assert set(Seen(page.text).attributes("form", "action")) >= {f"{here}/restore", f"{here}/delete"}
    assert "In the trash" not in ada.post(f"{here}/restore").text
    ada.post(f"{here}/delete", permanent="on")
    assert ada.get(here).status_code == 404
