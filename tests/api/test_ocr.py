"""Scanned documents, over HTTP."""

import pytest

from tests.support.factories import DOCX_TYPE, docx, encrypted_pdf, pdf
from tests.support.scans import needs_tesseract, scanned
from tests.support.user import User

pytestmark = needs_tesseract


@pytest.fixture(scope="module")
def scan() -> bytes:
    return scanned(pdf("Hello", pages=2))


def test_the_text_of_a_scan(user: User, scan: bytes) -> None:
    document = user.upload(scan)
    job = user.finished(user.start(document["id"], processor="ocr")["id"])
    assert (job["state"], job["progress"]) == ("SUCCEEDED", 1)
    result = user.http.get(job["result_url"]).json()
    assert result["data"]["text"] == "Hello 1\fHello 2"
    assert result["processor_version"].startswith("1+tesseract-")
    alone = user.http.get(job["result_url"], headers={"Accept": "text/plain"})
    assert (alone.status_code, alone.text) == (200, "Hello 1\fHello 2")


def test_the_text_of_a_scan_is_what_text_says_is_needed(user: User, scan: bytes) -> None:
    document = user.upload(scan)
    by_text = user.finished(user.start(document["id"], processor="text")["id"])
    needed = user.http.get(by_text["result_url"]).json()["data"]["needs_ocr"]
    by_ocr = user.finished(user.start(document["id"], processor="ocr")["id"])
    pages = user.http.get(by_ocr["result_url"]).json()["data"]["pages"]
    assert [page["number"] for page in pages if page["source"] == "ocr"] == needed == [1, 2]


def test_what_it_takes(user: User) -> None:
    [offered] = [each for each in user.http.get("/processors").json()["items"] if each["name"] == "ocr"]
    assert offered["content_types"] == ["application/pdf"]
    assert "eng" in str(offered["params"])
    refused = user.process(user.upload(docx(), "letter.docx", content_type=DOCX_TYPE)["id"], processor="ocr")
    assert refused.json()["code"] == "unsupported-content-type"


def test_a_language_that_is_not_there(user: User) -> None:
    refused = user.process(user.upload()["id"], processor="ocr", params={"languages": ["eng", "klingon"]})
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["pointer"] == "/params/languages/1"
    assert "'eng'" in error["detail"]
    assert "klingon" not in refused.text


def test_what_cannot_be_read_fails_for_good(user: User) -> None:
    job = user.finished(user.start(user.upload(encrypted_pdf("secret"))["id"], processor="ocr")["id"])
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("FAILED", 1, "password-protected")
