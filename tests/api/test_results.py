"""Results by processor: each keeps its last good one, whatever later jobs come to."""

import time
from typing import Any
from uuid import uuid4

import pytest

from tests.support.factories import DOCX_TYPE, pdf
from tests.support.user import User
from tests.support.wordprocessing import everything

QUICK = {"seconds": 0}


def processed(user: User, document_id: str, processor: str = "simulated", **params: Any) -> dict[str, Any]:
    """The finished job of one more process call."""
    params = params or (QUICK if processor == "simulated" else {})
    return user.finished(user.start(document_id, processor=processor, params=params, force=True)["id"])


def cancelled(user: User, document_id: str) -> None:
    """Begin a job, and cancel it."""
    job = user.start(document_id, params={"seconds": 60})
    assert user.http.post(f"/jobs/{job['id']}/cancel").status_code == 202


def results(user: User, document_id: str) -> dict[str, Any]:
    answer = user.http.get(f"/documents/{document_id}/results")
    assert answer.status_code == 200
    found = {each["processor"]: each for each in answer.json()["items"]}
    for processor, result in found.items():
        single = user.http.get(f"/documents/{document_id}/results/{processor}")
        assert result.pop("url") == f"/documents/{document_id}/results/{processor}"
        assert result.pop("size") == len(single.content)
        assert single.json() == result
    return found


def test_each_processor_keeps_its_last_good_result(user: User) -> None:
    document = user.upload()
    assert results(user, document["id"]) == {}
    text, simulated = (processed(user, document["id"], processor) for processor in ("text", "simulated"))
    found = results(user, document["id"])
    assert {name: each["job_id"] for name, each in found.items()} == {"text": text["id"], "simulated": simulated["id"]}
    for result in found.values():
        assert result["processor_version"] == {"text": "3", "simulated": "1"}[result["processor"]]
        assert result["input_sha256"] == document["sha256"]
    assert found["simulated"]["params"] == {"seconds": 0.0, "fail": None, "flaky": 0}
    assert found["text"]["data"]["characters"] > 0
    current = user.http.get(f"/documents/{document['id']}/result").json()
    assert current == found["simulated"], "the latest"
    listed = user.http.get(f"/documents/{document['id']}/results").json()["items"]
    assert [each["processor"] for each in listed] == ["simulated", "text"], "the latest first"
    again = processed(user, document["id"], "text")
    assert results(user, document["id"])["text"]["job_id"] == again["id"]


def test_a_later_job_that_fails_takes_no_result_away(user: User) -> None:
    document_id = user.upload()["id"]
    for processor in ("text", "simulated"):
        processed(user, document_id, processor)
    before = results(user, document_id)
    failed = processed(user, document_id, fail="permanent", seconds=0)
    assert failed["state"] == "FAILED"
    assert results(user, document_id) == before
    answer = user.http.get(f"/documents/{document_id}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "processing-failed")


def test_a_cancellation_puts_the_document_back_to_the_state_before(user: User) -> None:
    def state() -> Any:
        document = user.document(document_id)
        return document["status"], document["error"], document["job_id"], results(user, document_id)

    document_id = user.upload()["id"]
    before = state()
    cancelled(user, document_id)
    assert state() == before == ("UPLOADED", None, None, {})
    for params in ({"seconds": 0}, {"seconds": 0, "fail": "permanent"}):
        job = processed(user, document_id, **params)
        before = state()
        assert before[0] == {"SUCCEEDED": "COMPLETED", "FAILED": "FAILED"}[job["state"]]
        for _ in range(2):
            cancelled(user, document_id)
            assert state() == before
    changes = [each["data"] for each in user.events(document_id) if each["event"] == "document.status_changed"]
    assert [each["new"] for each in changes[:4]] == ["PROCESSING", "UPLOADED", "PROCESSING", "COMPLETED"]


def test_work_whose_result_is_there_is_not_done_again(user: User) -> None:
    document_id = user.upload()["id"]
    text = processed(user, document_id, "text")
    processed(user, document_id, "simulated")
    answer = user.process(document_id, processor="text")
    assert (answer.status_code, answer.json()["started"]) == (200, False)
    assert answer.json()["job"] == text
    assert user.process(document_id, processor="text", params={"max_pages": 1}).status_code == 202


@pytest.mark.parametrize("path", ["results", "results/simulated", "results/unknown"])
def test_results_of_others_and_of_nobody_are_not_found(user: User, stranger: User, path: str) -> None:
    document_id = user.upload()["id"]
    processed(user, document_id)
    assert stranger.http.get(f"/documents/{document_id}/{path}").status_code == 404
    assert user.http.get(f"/documents/{uuid4()}/{path}").status_code == 404
    assert user.http.get(f"/documents/{document_id}/{path}").status_code == (404 if "unknown" in path else 200)


def test_jobs_show_what_they_do_and_are_found_by_it(user: User) -> None:
    first, second = (user.upload()["id"] for _ in range(2))
    text, simulated = processed(user, first, "text"), processed(user, second)
    assert (text["kind"], text["processor"], text["params"]["max_pages"]) == ("process", "text", 10_000)
    assert text["run_at"] >= text["created_at"]

    def found(**filters: str) -> list[str]:
        return [each["id"] for each in user.http.get("/jobs", params=filters).json()["items"]]

    assert found(document_id=first) == found(processor="text") == [text["id"]]
    assert found(processor="simulated") == [simulated["id"]]
    assert found(processor="text", document_id=second) == found(processor="tex%") == []


def test_the_text_of_a_result_alone(user: User) -> None:
    document_id = user.upload(pdf("plain \u00e9 text"))["id"]
    processed(user, document_id, "text")
    whole = user.http.get(f"/documents/{document_id}/result")
    for path in ("result", "results/text"):
        answer = user.http.get(f"/documents/{document_id}/{path}", headers={"Accept": "text/plain"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert answer.text == whole.json()["data"]["text"] != ""
        assert answer.headers["vary"] == whole.headers["vary"] == "Accept, Accept-Encoding"
        assert answer.headers["etag"] != whole.headers["etag"]
        known = {"Accept": "text/plain", "If-None-Match": answer.headers["etag"]}
        assert user.http.get(f"/documents/{document_id}/{path}", headers=known).status_code == 304
        assert user.http.head(f"/documents/{document_id}/{path}", headers={"Accept": "text/plain"}).content == b""


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", "application/json"),
        ("image/png", "application/json"),
        ("text/plain;q=0", "application/json"),
        ("text/plain;q=0.4, application/json;q=0.5", "application/json"),
        ("text/plain", "text/plain"),
        ("TEXT/Plain; charset=utf-8 ; q=0.5, application/*;q=0.4", "text/plain"),
        ("text/*, application/json;q=0.9", "text/plain"),
        ("text/plain, */*;q=0.5", "text/plain"),
        (f"{'a/b; ' * 5000}, text/plain", "text/plain"),
        ("a" * 30_000, "application/json"),
        ("a/" * 15_000, "application/json"),
        ("a/a" + ";q" * 14_000, "application/json"),
    ],
)
def test_what_is_accepted_chooses(user: User, accept: str, kind: str) -> None:
    document_id = user.upload()["id"]
    processed(user, document_id, "text")
    asked_at = time.perf_counter()
    answer = user.http.get(f"/documents/{document_id}/result", headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert time.perf_counter() - asked_at < 2, "of the event loop"


def test_a_result_without_text_is_not_acceptable_as_such(user: User) -> None:
    document_id = user.upload()["id"]
    processed(user, document_id)
    answer = user.http.get(f"/documents/{document_id}/result", headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")


def test_markdown_and_chunks(user: User) -> None:
    document = user.upload(everything(), "a.docx", content_type=DOCX_TYPE)
    params = {"format": "markdown", "chunks": {"size": 200, "overlap": 20}}
    processed(user, document["id"], "text", **params)
    address = f"/documents/{document['id']}/result"
    result = user.http.get(address).json()
    assert (result["params"]["format"], result["params"]["chunks"]) == ("markdown", params["chunks"])
    data = result["data"]
    assert (data["engine"], data["text"].partition("\n")[0]) == ("docx", "# Annual report \\#")
    assert [each["text"] for each in data["chunks"]] == [data["text"][c["start"] : c["end"]] for c in data["chunks"]]
    assert user.http.get(address, headers={"Accept": "text/plain"}).text == data["text"]
    refused = user.process(document["id"], processor="text", params={"chunks": {"size": 200, "overlap": 101}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/params/chunks")
