"""Documents in the console: the overview, the list, uploads, and what forms do."""

import re
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from uuid import UUID

import pytest

from app.documents import activity
from app.documents.models import documents
from tests.support.console import Browser, Seen, worked
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process


def test_the_overview_counts_by_state(process: Process) -> None:
    browser = Browser(process).sign_in()
    assert "no documents yet" in Seen(browser.get("/console").text).text
    browser.upload()
    browser.upload()
    failed = browser.upload(process="simulated", process_params='{"fail": "permanent", "seconds": 0}')
    worked(browser, failed)
    seen = Seen(browser.get("/console").text)
    counted = re.findall(r"(\d+)\s+[◌○◐✓✕] (\w+)", seen.text.partition(" uses ")[0])
    assert dict(reversed(each) for each in counted) == {
        **dict.fromkeys(("Initiated", "Processing", "Completed"), "0"),
        "Uploaded": "2",
        "Failed": "1",
    }
    assert "Failed, the latest first" in seen.text


def test_the_overview_shows_what_came_in_by_the_hour(process: Process) -> None:
    browser = Browser(process).sign_in()
    assert "Received by the hour" not in browser.get("/console").text
    gone = browser.upload()
    browser.post(f"/console/documents/{gone}/delete")
    worked(browser, browser.upload(process="simulated", process_params='{"seconds": 0}'))
    worked(browser, browser.upload(process="simulated", process_params='{"seconds": 0, "fail": "permanent"}'))
    for hours in (1, 1, 25):
        aged(process, browser.upload(), hours)
    seen = Seen(browser.get("/console").text)
    table = seen.text.partition("Received by the hour, and how it stands now")[2].partition("Failed, the latest")[0]
    rows = re.findall(r":00(\d{4})", table)
    assert rows == ["0002", "1101"], "completed, failed, processing, uploaded"
    bars = [float(each["height"] or 0) for tag, each in seen.tags if tag == "rect" and each.get("width") == "24"]
    assert bars == [66.67, 33.33, 33.33, 33.33]


def aged(process: Process, document_id: str, hours: int) -> None:
    """Have a document come in earlier."""
    then = datetime.now(UTC) - timedelta(hours=hours)
    process.write(
        lambda conn: conn.execute(documents.update().where(documents.c.id == UUID(document_id)).values(created_at=then))
    )


def test_times_are_filled_in_as_browsers_have_fields_for_them(process: Process) -> None:
    browser = Browser(process).sign_in()
    browser.upload()
    for filled, found in (("after=2026-01-02T03%3A04", True), ("before=2026-01-02T03:04:00", False)):
        page = browser.get(f"/console/documents?created_{filled}")
        assert ("No document matches" not in page.text) is found
        assert "2026-01-02T03:04:00" in page.text
    assert browser.get("/console/documents?created_after=soon").status_code == 422


def test_an_hour_is_not_counted_beyond_what_is_shown(process: Process) -> None:
    browser = Browser(process).sign_in()
    for _ in range(3):
        browser.upload()
    with patch.object(activity, "MOST", 2), patch("app.console.overview.MOST", 2):
        page = Seen(browser.get("/console").text).text
    assert "over 2" in page
    assert "at most 2 an hour are counted" in page


def test_filters_are_those_of_the_api_and_pages_follow_each_other(process: Process) -> None:
    browser = Browser(process).sign_in()
    for number in range(3):
        browser.upload(filename=f"{number}.pdf", folder="in")
    browser.upload(filename="other.pdf")
    blanks = "q=&status=&tag=&created_after=&content_type="
    page = Seen(browser.get(f"/console/documents?folder=in&sort=filename&limit=2&{blanks}").text)
    assert re.findall(r"\w+\.pdf", page.text) == ["0.pdf", "1.pdf"]
    [more] = [href for tag, each in page.tags if each.get("rel") == "next" and (href := each["href"])]
    assert re.findall(r"\w+\.pdf", Seen(browser.get(more).text).text) == ["2.pdf"]
    first = Seen(browser.get(more).text)
    back = [each["href"] for tag, each in first.tags if tag == "a" and "limit=2" in (each.get("href") or "")]
    assert back == [more.rpartition("&cursor=")[0]]
    wrong = browser.get("/console/documents?status=NONE&cursor=x")
    assert (wrong.status_code, "<strong>State:</strong>" in wrong.text) == (422, True)
    assert "invalid-cursor" in browser.get("/console/documents?cursor=x").text


def test_the_filter_of_those_on_hold_stays(ada: Browser) -> None:
    page = ada.get("/console/documents?held=true").text
    assert re.search(r'<select name="held">.*<option value="true" selected>', page)
    assert re.search(r"<details open>\s*<summary>More filters", page)


def test_upload_with_all_that_the_form_has(ada: Browser) -> None:
    work = {"process": "simulated", "process_params": '{"seconds": 0}'}
    own = ada.upload(description="a\r\nb", folder="in", tags="x\r\n\r\n y ", **work)
    found = ada.api(f"/documents/{own}")
    assert (found["description"], found["folder"], found["tags"]) == ("a\nb", "in", ["x", "y"])
    assert found["status"] == "PROCESSING"
    worked(ada, found["id"])


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (b"no document", {}, 415, "unsupported-document"),
        (pdf(), {"process": "none"}, 422, "unknown-processor"),
        (pdf(), {"process": "text", "process_params": "{"}, 422, "validation-failed"),
        (pdf(), {"tags": "x" * 51}, 422, "validation-failed"),
        (pdf(), {"metadata": "{}"}, 422, "malformed-multipart"),
    ],
    ids=["no PDF", "no processor", "no JSON", "long tag", "another field"],
)
def test_an_upload_that_is_refused_says_why(
    ada: Browser, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    form = {"data": fields or {"folder": ""}, "files": {"file": ("a.pdf", content, PDF_TYPE)}}
    answer = ada.send("POST", "/console/documents", **form)
    assert (answer.status_code, f"<code>{code}</code>" in answer.text) == (status, True), answer.text


def test_edit(ada: Browser) -> None:
    here = f"/console/documents/{(own := ada.upload(folder='old', tags='t'))}"
    form = {"version": "1", "description": "d", "tags": "a\r\nb", "expires_at": "2099-01-01T12:00", "folder": ""}
    shown = ada.post(f"{here}/edit", **form)
    assert "2099-01-01 12:00:00" in Seen(shown.text).text
    found = ada.api(f"/documents/{own}")
    assert (found["description"], found["folder"], found["tags"]) == ("d", None, ["a", "b"])
    again = ada.post(f"{here}/edit", **form)
    assert (again.status_code, "precondition-failed" in again.text) == (412, True)
    assert ("It was changed meanwhile" in again.text, "If-Match" in again.text) == (True, False)
    ada.post(f"{here}/edit", version="2", expires_at="2099-01-01T12:00:00", expires_at_before="2099-01-01T12:00:00")
    assert ada.api(f"/documents/{own}")["expires_at"].startswith("2099-01-01T12:00:00")
    ada.post(f"{here}/edit", version="3", expires_at="", expires_at_before="2099-01-01T12:00:00")
    assert ada.api(f"/documents/{own}")["expires_at"] is None
    assert ada.post(f"{here}/edit", version="4", expires_at="soon").status_code == 422


def test_process_cancel_and_retry(ada: Browser) -> None:
    here = f"/console/documents/{(own := ada.upload())}"
    shown = ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0, "fail": "permanent"}')
    [cancel] = [each for each in Seen(shown.text).attributes("form", "action") if each.endswith("/cancel")]
    assert "Cancelled" in Seen(ada.post(cancel).text).text
    assert ada.post(cancel).status_code == 409
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0, "fail": "permanent"}')
    worked(ada, own)
    failed = Seen(ada.get(here).text)
    assert {"Failed", "Retry"} <= set(failed.text.split())
    [retry, _] = [each for each in failed.attributes("form", "action") if each.endswith("/retry")]
    retried = ada.post(retry)
    assert "Processing" in Seen(retried.text).text
    worked(ada, own)
    assert ada.post(f"{here}/process", processor="none").status_code == 422
    assert ada.post(f"{here}/process", params="[]").status_code == 422
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0}')
    worked(ada, own)
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0}', force="on")
    assert ada.api(f"/documents/{own}")["status"] == "PROCESSING"
    worked(ada, own)


def test_results_are_shown_and_sent(ada: Browser) -> None:
    own = ada.upload(content=pdf("Some words"), process="text")
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}")
    assert "Some words" in Seen(page.text).text
    sent = ada.get(f"/console/documents/{own}/results/text", ("Accept", "text/html,*/*;q=0.8"))
    assert sent.json()["data"]["text"].startswith("Some words")


def test_download(ada: Browser) -> None:
    content = pdf("whole")
    own = ada.upload(content=content)
    answer = ada.get(f"/console/documents/{own}/content")
    assert (answer.content, answer.headers["content-security-policy"]) == (content, "default-src 'none'; sandbox")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert ada.get(f"/console/documents/{own}/content?file=1").content == content
    assert ada.get(f"/console/documents/{own}/content?file=2").status_code == 404


def test_delete_and_restore(ada: Browser) -> None:
    own = ada.upload(filename="thrown away.pdf")
    stale = ada.post(f"/console/documents/{own}/delete", version="7")
    assert stale.status_code == 412
    assert "thrown away.pdf" not in ada.post(f"/console/documents/{own}/delete", version="1").text
    assert "thrown away.pdf" in ada.get("/console/documents?trashed=true").text
    assert ada.post(f"/console/documents/{own}/restore").status_code == 200
    gone = ada.post(f"/console/documents/{own}/delete", permanent="on")
    assert "thrown away.pdf" not in gone.text
    other = ada.upload(filename="thrown away.pdf")
    ada.post(f"/console/documents/{other}/delete")
    assert "thrown away.pdf" not in ada.post("/console/trash/empty").text


def test_forms_that_are_none(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload()}/edit"
    assert ada.send("POST", here, json={}).status_code == 415
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    assert ada.send("POST", here, kind, content=b"description=%ff").status_code == 422
    assert ada.send("POST", here, kind, content=b"description=" + b"x" * 70_000).status_code == 413
    answer = ada.send("PUT", here)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
