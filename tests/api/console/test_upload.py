"""The upload form: one file at a time, and by a key as the script sends it."""

import httpx2
import pytest

from tests.support.console import Browser, Seen
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process


def send(browser: Browser, key: str, content: bytes, **fields: str) -> httpx2.Response:
    form = {"data": fields or {"folder": ""}, "files": {"file": ("a.pdf", content, PDF_TYPE)}}
    return browser.send("POST", "/console/documents", ("Idempotency-Key", key), **form)


def test_a_file_that_is_sent_again_with_its_key_makes_no_second_document(process: Process) -> None:
    browser, content = Browser(process).sign_in(), pdf()
    first, second = (send(browser, "one", content) for _ in range(2))
    assert (first.status_code, first.headers["location"]) == (303, second.headers["location"])
    assert browser.api("/documents?count=true")["total"] == 1
    other = send(browser, "one", content, folder="elsewhere")
    assert (other.status_code, "<code>idempotency-key-reused</code>" in other.text) == (422, True)
    assert send(browser, "two", content, folder="elsewhere").headers["location"] != first.headers["location"]
    browser.post(f"{first.headers['location']}/delete")
    assert send(browser, "one", content).headers["location"] != first.headers["location"]


@pytest.mark.parametrize("key", ["", "\t", "x" * 256, '"open'])
def test_a_key_that_is_none(ada: Browser, key: str) -> None:
    assert send(ada, key, pdf()).status_code == 400


def test_the_form_works_without_a_script(ada: Browser) -> None:
    page = Seen(ada.get("/console/upload?process=simulated").text)
    [file] = [each for tag, each in page.tags if tag == "input" and each.get("name") == "file"]
    assert "required" in file
    hidden = [each for _, each in page.tags if "data-scripted" in each or "data-finished" in each]
    assert hidden
    assert all("hidden" in each for each in hidden)
    names = {each["name"] for _, each in page.tags if "name" in each}
    assert {"file", "description", "folder", "tags", "process", "process_params.simulated.seconds"} <= names


def test_only_fields_of_the_form_are_taken(ada: Browser) -> None:
    answer = send(ada, "other", pdf(), **{"process_params.unknown": "1"})
    assert (answer.status_code, "malformed-multipart" in answer.text) == (422, True)
