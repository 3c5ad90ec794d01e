"""The page of one document: what is drawn of its jobs, how results are shown, and what can be done with its files."""

import re
from pathlib import Path
from typing import Any

from app.events.failure import Failure
from app.jobs.kinds import Failed, Released, Retryable
from tests.support.console import Browser, Seen, worked
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process


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
    assert "it happened" in page.text
    assert "it happened" in browser.get(f"/console/webhooks/{hook}").text
    worked(browser, own)


def test_where_one_is_on_the_page(ada: Browser) -> None:
    page = Seen(ada.get(f"/console/documents/{ada.upload()}").text)
    ids = [each["id"] for _, each in page.tags if "id" in each]
    links = {each[1:] for each in page.attributes("a", "href") if each.startswith("#")}
    assert {"facts", "pages", "files"} <= links <= set(ids)


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
