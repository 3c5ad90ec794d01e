"""POST /documents/{id}/process: what each state of a document answers, and what an Idempotency-Key promises."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import update

from app.processing.models import results
from tests.support import databases
from tests.support.factories import DOCX_TYPE, PDF_TYPE
from tests.support.server import Server
from tests.support.user import User

QUICK = {"params": {"seconds": 0}}
LONG = {"params": {"seconds": 60}}
FAILING = {"params": {"seconds": 0, "fail": "permanent"}}


@pytest.fixture
def running(user: User) -> Iterator[Callable[..., tuple[str, dict[str, Any]]]]:
    """Begins long work on a new document; it is cancelled after the test, so that it holds up nobody."""
    begun = []

    def begin(**options: Any) -> tuple[str, dict[str, Any]]:
        document_id = user.upload()["id"]
        begun.append(user.start(document_id, **LONG, **options))
        return document_id, begun[-1]

    yield begin
    for job in begun:
        user.http.post(f"/jobs/{job['id']}/cancel")


def processed(user: User, **wanted: Any) -> tuple[str, dict[str, Any]]:
    """A new document and its finished job."""
    document_id = user.upload()["id"]
    return document_id, user.finished(user.start(document_id, **(wanted or QUICK))["id"])


def jobs_of(user: User, document_id: str) -> int:
    return [event["event"] for event in user.events(document_id)].count("job.queued")


def assert_started(answer: httpx2.Response) -> None:
    """202, a job of its own, and a document that is its."""
    assert answer.status_code == 202, answer.text
    document, job = answer.json()["document"], answer.json()["job"]
    assert answer.json()["started"] is True
    assert (document["status"], document["job_id"], document["error"]) == ("PROCESSING", job["id"], None)
    assert (job["document_id"], job["state"], job["attempt"]) == (document["id"], "QUEUED", 0)
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert "idempotent-replayed" not in answer.headers


def assert_returned(answer: httpx2.Response, job: dict[str, Any]) -> None:
    """200, and the job that there was."""
    assert answer.status_code == 200, answer.text
    assert (answer.json()["started"], answer.json()["job"]["id"]) == (False, job["id"])
    assert answer.json()["document"]["job_id"] == job["id"]
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert "retry-after" not in answer.headers


def assert_refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_uploaded_document_starts(user: User) -> None:
    document = user.upload()
    answer = user.process(document["id"], **QUICK)
    assert_started(answer)
    assert answer.json()["document"]["version"] > document["version"]


def test_a_document_at_work_returns_the_running_job(user: User, running: Any) -> None:
    document_id, job = running()
    assert_returned(user.process(document_id, **LONG), job)
    assert_returned(user.process(document_id, **LONG, force=True), job)
    assert jobs_of(user, document_id) == 1


@pytest.mark.parametrize("other", [QUICK, {"processor": "text"}, {"params": {"seconds": 60, "flaky": 1}}])
def test_a_document_at_work_refuses_other_work(user: User, running: Any, other: dict[str, Any]) -> None:
    document_id, job = running()
    assert_refused(user.process(document_id, **other), 409, "job-in-progress")
    assert user.document(document_id)["job_id"] == job["id"]
    assert jobs_of(user, document_id) == 1


def test_a_completed_document_returns_the_finished_job(user: User) -> None:
    document_id, job = processed(user)
    answer = user.process(document_id, **QUICK)
    assert_returned(answer, job)
    assert answer.json()["job"]["state"] == "SUCCEEDED"
    assert user.document(document_id)["status"] == "COMPLETED"


@pytest.mark.parametrize("other", [QUICK | {"force": True}, {"params": {"seconds": 0.01}}, {"processor": "text"}])
def test_a_completed_document_starts_anew_for_other_or_forced_work(user: User, other: dict[str, Any]) -> None:
    document_id, job = processed(user)
    answer = user.process(document_id, **other)
    assert_started(answer)
    assert answer.json()["job"]["id"] != job["id"]
    user.finished(answer.json()["job"]["id"])


def test_a_result_of_an_older_version_is_not_current(server: Server, user: User) -> None:
    document_id, job = processed(user)
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(update(results).where(results.c.job_id == UUID(job["id"])).values(processor_version="older"))
    assert_started(user.process(document_id, **QUICK))


def test_a_failed_document_starts_anew_with_the_same_work(user: User) -> None:
    document_id, failed = processed(user, **FAILING)
    assert user.document(document_id)["status"] == "FAILED"
    answer = user.process(document_id, **FAILING)
    assert_started(answer)
    assert answer.json()["job"]["id"] != failed["id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"processor": "simulated"}',
        b'{"params": {"seconds": 1}}',
        b'{"params": {"flaky": 0, "fail": null, "seconds": 1.0}, "force": false}',
    ],
)
def test_what_is_left_out_equals_the_default(user: User, body: bytes) -> None:
    document_id = user.upload()["id"]
    job = user.start(document_id, processor="simulated", params={"seconds": 1, "fail": None})
    headers = {"Content-Type": "application/json"} if body else {}
    assert_returned(user.http.post(f"/documents/{document_id}/process", content=body, headers=headers), job)


@pytest.mark.parametrize(
    ("wanted", "code", "pointer"),
    [
        ({"processor": "alchemy"}, "unknown-processor", "/processor"),
        ({"params": {"seconds": 61}}, "validation-failed", "/params/seconds"),
        ({"params": {"seconds": "soon"}}, "validation-failed", "/params/seconds"),
        ({"params": {"seconds": "1"}}, "validation-failed", "/params/seconds"),
        ({"params": {"seconds": True}}, "validation-failed", "/params/seconds"),
        ({"params": {"flaky": "1"}}, "validation-failed", "/params/flaky"),
        ({"processor": "text", "params": {"max_pages": True}}, "validation-failed", "/params/max_pages"),
        ({"processor": "text", "params": {"chunks": {"size": "500"}}}, "validation-failed", "/params/chunks/size"),
        ({"processor": "split", "params": {"every": "2"}}, "validation-failed", "/params/every"),
        ({"params": {"fail": "maybe"}}, "validation-failed", "/params/fail"),
        ({"params": {"flaky": 11}}, "validation-failed", "/params/flaky"),
        ({"params": {"colour": "red"}}, "validation-failed", "/params/colour"),
        ({"params": []}, "validation-failed", "/params"),
        ({"force": "yes"}, "validation-failed", "/force"),
        ({"priority": 1}, "validation-failed", "/priority"),
    ],
)
def test_unusable_requests_are_pointed_at(user: User, wanted: dict[str, Any], code: str, pointer: str) -> None:
    document_id = user.upload()["id"]
    answer = user.process(document_id, **wanted)
    assert_refused(answer, 422, code)
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert user.document(document_id)["status"] == "UPLOADED"


def test_a_strangers_document_is_missing(user: User, stranger: User) -> None:
    document_id = user.upload()["id"]
    theirs, missing = stranger.process(document_id), stranger.process(str(uuid4()))
    assert_refused(theirs, 404, "not-found")
    differ = {"instance", "request_id"}
    assert {k: v for k, v in theirs.json().items() if k not in differ} == {
        k: v for k, v in missing.json().items() if k not in differ
    }
    assert user.document(document_id)["status"] == "UPLOADED"


@pytest.mark.parametrize(("wanted", "end"), [(LONG, "RUNNING"), (QUICK, "SUCCEEDED"), (FAILING, "FAILED")])
def test_a_repeated_request_gets_the_first_answer(user: User, wanted: dict[str, Any], end: str) -> None:
    document_id = user.upload()["id"]
    first = user.process(document_id, key="again", **wanted)
    assert_started(first)
    job_id = first.json()["job"]["id"]
    if end != "RUNNING":
        assert user.finished(job_id)["state"] == end
    document = user.document(document_id)
    for _ in range(2):
        again = user.process(document_id, key="again", **wanted)
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotent-replayed"] == "true"
    user.http.post(f"/jobs/{job_id}/cancel")
    assert jobs_of(user, document_id) == 1
    if end != "RUNNING":
        assert user.document(document_id) == document


def test_a_key_stands_for_one_request(user: User) -> None:
    document_id, other_id = user.upload()["id"], user.upload()["id"]
    assert_started(user.process(document_id, key="one", **QUICK))
    assert_refused(user.process(document_id, key="one", params={"seconds": 0.1}), 422, "idempotency-key-reused")
    assert_refused(user.process(document_id, key="one", **QUICK, force=True), 422, "idempotency-key-reused")
    assert_refused(user.process(other_id, key="one", **QUICK), 422, "idempotency-key-reused")
    assert user.document(other_id)["status"] == "UPLOADED"


def test_a_key_is_shared_by_upload_and_process(user: User) -> None:
    document_id = user.upload(key="shared")["id"]
    assert_refused(user.process(document_id, key="shared", **QUICK), 422, "idempotency-key-reused")


def test_refusals_are_not_remembered(user: User, running: Any) -> None:
    document_id, job = running()
    assert_refused(user.process(document_id, key="later", **QUICK), 409, "job-in-progress")
    assert_refused(user.process(document_id, key="later", processor="alchemy"), 422, "unknown-processor")
    assert user.http.post(f"/jobs/{job['id']}/cancel").status_code == 202
    assert_started(user.process(document_id, key="later", **QUICK))


def test_an_answer_that_started_nothing_is_remembered(user: User) -> None:
    document_id, job = processed(user)
    first = user.process(document_id, key="nothing", **QUICK)
    assert_returned(first, job)
    assert "idempotent-replayed" not in first.headers
    user.finished(user.start(document_id, **QUICK, force=True)["id"])
    again = user.process(document_id, key="nothing", **QUICK)
    assert_returned(again, job)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")


def test_a_deleted_document_is_not_replayed(user: User) -> None:
    document_id = user.upload()["id"]
    first = user.process(document_id, key="gone", **QUICK)
    user.finished(first.json()["job"]["id"])
    assert user.http.delete(f"/documents/{document_id}").status_code == 204
    assert_refused(user.process(document_id, key="gone", **QUICK), 404, "not-found")


def test_users_do_not_share_keys(user: User, stranger: User) -> None:
    assert_started(user.process(user.upload()["id"], key="mine", **QUICK))
    assert_started(stranger.process(stranger.upload()["id"], key="mine", **QUICK))


def test_a_quoted_key_is_the_bare_one(user: User) -> None:
    document_id = user.upload()["id"]
    first = user.process(document_id, key='"a-key"', **QUICK)
    assert_started(first)
    for key in ("a-key", '"a-key"'):
        again = user.process(document_id, key=key, **QUICK)
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")


@pytest.mark.parametrize("keys", [[""], ['""'], ['"open'], ["k" * 256], ["ключ"], ["a\tb"], ["a", "a"], ["a", "b"]])
def test_malformed_keys_are_refused(user: User, keys: list[str]) -> None:
    document_id = user.upload()["id"]
    headers = [(b"Idempotency-Key", key.encode()) for key in keys]
    assert_refused(
        user.http.post(f"/documents/{document_id}/process", headers=headers), 400, "malformed-idempotency-key"
    )
    assert user.document(document_id)["status"] == "UPLOADED"


def test_the_longest_key_is_accepted(user: User) -> None:
    assert_started(user.process(user.upload()["id"], key="k" * 255, **QUICK))


def test_a_key_expires(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"IDEMPOTENCY_TTL": "1.5"}) as server:
        user = server.register()
        document_id, other_id = user.upload()["id"], user.upload()["id"]
        used_at = time.monotonic()
        assert_started(user.process(document_id, key="brief", **QUICK))
        assert_refused(user.process(other_id, key="brief", **QUICK), 422, "idempotency-key-reused")
        while (answer := user.process(other_id, key="brief", **QUICK)).status_code == 422:
            assert time.monotonic() - used_at < 10
            time.sleep(0.1)
        assert_started(answer)
        assert time.monotonic() - used_at > 1.4


def test_processors_say_what_they_take_and_give(user: User) -> None:
    offered = user.http.get("/processors").json()["items"]
    assert [each["name"] for each in offered if each["default"]] == ["simulated"]
    # And ocr, where there is tesseract.
    assert [each["name"] for each in offered][:4] == ["simulated", "text", "language", "keywords"]
    text = offered[1]
    assert text["params"]["properties"]["max_pages"]["maximum"] == 50_000
    job = user.finished(user.start(user.upload()["id"], processor="text")["id"])
    result = user.http.get(job["result_url"]).json()
    assert (result["processor_version"], set(result["data"])) == (text["version"], set(text["result"]["properties"]))
    assert text["content_types"] == [PDF_TYPE, DOCX_TYPE]
