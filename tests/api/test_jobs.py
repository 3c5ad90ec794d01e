"""Jobs as their owner sees them: waiting, progress, failures of each kind, cancellation, results, lists."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.factories import encrypted_pdf
from tests.support.server import Server
from tests.support.user import User

ENDS = {"job.succeeded", "job.failed", "job.cancelled"}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs one job at a time, and each at most twice."""
    settings = {"JOB_CONCURRENCY": "1", "JOB_MAX_TRIES": "2", "JOB_TIMEOUT": "2"}
    with Server(tmp_path_factory.mktemp("narrow") / "var", settings) as server:
        yield server


@pytest.fixture
def patient(narrow: Server) -> User:
    """A user of the narrow server."""
    return narrow.register()


def begun(user: User, **params: Any) -> tuple[str, dict[str, Any]]:
    """A new document, and its job just accepted."""
    document_id = user.upload()["id"]
    return document_id, user.start(document_id, params={"seconds": 0} | params)


def ended(user: User, **params: Any) -> tuple[str, dict[str, Any]]:
    """A new document, and its finished job."""
    document_id, job = begun(user, **params)
    return document_id, user.finished(job["id"])


def in_state(user: User, job_id: str, state: str, timeout: float = 20) -> dict[str, Any]:
    """The job once it has reached a state."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        job: dict[str, Any] = user.http.get(f"/jobs/{job_id}").json()
        if job["state"] == state:
            return job
        time.sleep(0.02)
    raise AssertionError(f"not {state} in time: {job}")


def names(user: User, document_id: str) -> list[str]:
    return [event["event"] for event in user.events(document_id)]


def the_end(user: User, document_id: str) -> str:
    """The one event that ended the document's one job."""
    (end,) = [name for name in names(user, document_id) if name in ENDS]
    return str(end)


def cancel(user: User, job_id: str) -> Any:
    return user.http.post(f"/jobs/{job_id}/cancel")


def test_a_long_poll_ends_with_the_job(user: User) -> None:
    _, job = begun(user, seconds=0.8)
    asked_at = time.monotonic()
    answer = user.http.get(f"/jobs/{job['id']}", params={"wait": 30})
    assert 0.6 < time.monotonic() - asked_at < 8
    assert answer.json()["state"] == "SUCCEEDED"
    assert "retry-after" not in answer.headers


def test_a_long_poll_ends_with_its_time(user: User) -> None:
    _, job = begun(user, seconds=30)
    asked_at = time.monotonic()
    answer = user.http.get(f"/jobs/{job['id']}", params={"wait": 0.4})
    assert 0.4 <= time.monotonic() - asked_at < 5
    assert answer.status_code == 200
    assert answer.json()["state"] in {"QUEUED", "RUNNING"}
    assert answer.json()["result_url"] is None
    assert int(answer.headers["retry-after"]) > 0
    cancel(user, job["id"])


def test_a_long_poll_ends_with_a_cancellation(user: User, server: Server) -> None:
    _, job = begun(user, seconds=60)
    asked_at = time.monotonic()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(user.at(server).http.get, f"/jobs/{job['id']}", params={"wait": 30})
        in_state(user, job["id"], "RUNNING")
        cancel(user, job["id"])
        assert waiting.result().json()["state"] == "CANCELLED"
    assert time.monotonic() - asked_at < 10


@pytest.mark.parametrize("wait", ["-1", "30.1", "soon", "nan", "inf"])
def test_a_long_poll_has_bounds(user: User, wait: str) -> None:
    _, job = ended(user)
    answer = user.http.get(f"/jobs/{job['id']}", params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/query/wait"


def test_progress_rises(user: User) -> None:
    _, job = begun(user, seconds=2.5)
    seen = [job["progress"]]
    while job["state"] in {"QUEUED", "RUNNING"}:
        job = user.http.get(f"/jobs/{job['id']}").json()
        seen.append(job["progress"])
        time.sleep(0.05)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
    assert len(set(seen)) > 2, "something between the beginning and the end"


def test_a_permanent_failure_is_final(user: User) -> None:
    document_id, job = ended(user, fail="permanent")
    assert (job["state"], job["attempt"], job["dead"], job["result_url"]) == ("FAILED", 1, False, None)
    assert job["error"]["code"] == "simulated-permanent"
    document = user.document(document_id)
    assert (document["status"], document["error"]) == ("FAILED", job["error"])
    result = user.http.get(f"/documents/{document_id}/result")
    assert (result.status_code, result.json()["code"]) == (409, "processing-failed")
    assert result.json()["error"] == job["error"]
    assert "retry-after" not in result.headers
    assert the_end(user, document_id) == "job.failed"


def test_a_transient_failure_is_retried(user: User) -> None:
    document_id, job = ended(user, flaky=1)
    assert (job["state"], job["attempt"], job["error"]) == ("SUCCEEDED", 2, None)
    assert user.document(document_id)["status"] == "COMPLETED"
    tried = ["job.queued", "job.started", "job.retried", "job.started", "job.succeeded"]
    assert [name for name in names(user, document_id) if name.startswith("job.")] == tried
    (retried,) = [event for event in user.events(document_id) if event["event"] == "job.retried"]
    assert retried["data"]["error"]["code"] == "simulated-transient"
    assert 1 <= retried["data"]["delay"] <= 2


def test_a_job_out_of_tries_is_a_dead_letter_and_can_be_started_anew(patient: User) -> None:
    document_id, job = ended(patient, fail="transient")
    assert (job["state"], job["attempt"], job["max_attempts"], job["dead"]) == ("FAILED", 2, 2, True)
    assert job["error"]["code"] == "simulated-transient"
    assert patient.document(document_id)["error"] == job["error"]
    assert the_end(patient, document_id) == "job.failed"
    assert patient.http.get("/jobs", params={"dead": True}).json()["items"] == [job]
    assert patient.http.get("/jobs", params={"dead": False}).json()["items"] == []

    anew = patient.finished(patient.start(document_id)["id"])
    assert (anew["state"], anew["attempt"], anew["id"] != job["id"]) == ("SUCCEEDED", 1, True)
    document = patient.document(document_id)
    assert (document["status"], document["error"], document["job_id"]) == ("COMPLETED", None, anew["id"])
    assert patient.http.get("/jobs", params={"dead": True}).json()["items"] == [job]


def test_an_attempt_has_a_time_limit(patient: User) -> None:
    document_id, job = begun(patient, seconds=60)
    in_state(patient, job["id"], "RUNNING")
    waiting = in_state(patient, job["id"], "QUEUED")
    assert (waiting["error"]["code"], waiting["attempt"], waiting["dead"]) == ("job-timeout", 1, False)
    assert patient.document(document_id)["status"] == "PROCESSING"
    assert cancel(patient, job["id"]).status_code == 202


def test_a_queued_job_can_be_cancelled(patient: User) -> None:
    _, ahead = begun(patient, seconds=60)
    in_state(patient, ahead["id"], "RUNNING")
    document_id, job = begun(patient)
    assert patient.http.get(f"/jobs/{job['id']}").json()["state"] == "QUEUED"
    answer = cancel(patient, job["id"])
    assert (answer.status_code, answer.json()["state"]) == (202, "CANCELLED")
    assert answer.json()["error"]["code"] == "job-cancelled"
    assert answer.json()["finished_at"] is not None
    cancel(patient, ahead["id"])
    _, behind = ended(patient)  # whoever queued behind it has run, so its own turn has come and gone
    assert behind["state"] == "SUCCEEDED"
    assert patient.http.get(f"/jobs/{job['id']}").json() == answer.json()
    document = patient.document(document_id)
    assert (document["status"], document["error"], document["job_id"]) == ("UPLOADED", None, None)
    assert "job.started" not in names(patient, document_id)
    assert the_end(patient, document_id) == "job.cancelled"


def test_a_running_job_can_be_cancelled_and_makes_room(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "1", "LEASE_SECONDS": "3"}) as server:
        user = server.register()
        document_id, job = begun(user, seconds=60)
        in_state(user, job["id"], "RUNNING")
        answer = cancel(user, job["id"])
        assert (answer.status_code, answer.json()["state"]) == (202, "CANCELLED")
        again = cancel(user, job["id"])
        assert (again.status_code, again.json()["code"]) == (409, "job-finished")
        _, behind = begun(user)
        assert user.finished(behind["id"], timeout=20)["state"] == "SUCCEEDED"
        assert user.http.get(f"/jobs/{job['id']}").json() == answer.json()
        assert user.document(document_id)["status"] == "UPLOADED"
        assert the_end(user, document_id) == "job.cancelled"
        assert not server.logs("job.attempt_broken")


def test_a_cancelled_document_can_be_processed_again(user: User) -> None:
    document_id, job = begun(user, seconds=30)
    cancel(user, job["id"])
    assert user.finished(user.start(document_id)["id"])["state"] == "SUCCEEDED"
    assert user.document(document_id)["status"] == "COMPLETED"


@pytest.mark.parametrize("params", [{}, {"fail": "permanent"}])
def test_a_finished_job_cannot_be_cancelled(user: User, params: dict[str, Any]) -> None:
    document_id, job = ended(user, **params)
    answer = cancel(user, job["id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "job-finished")
    assert user.http.get(f"/jobs/{job['id']}").json() == job
    assert the_end(user, document_id) == {"SUCCEEDED": "job.succeeded", "FAILED": "job.failed"}[job["state"]]


def test_a_result_is_there_once_the_document_is_completed(user: User) -> None:
    def refused(document_id: str) -> tuple[int, str, bool]:
        answer = user.http.get(f"/documents/{document_id}/result")
        return answer.status_code, answer.json()["code"], "retry-after" in answer.headers

    document = user.upload()
    assert refused(document["id"]) == (409, "result-not-ready", False)
    job = user.start(document["id"], params={"seconds": 0.7})
    assert refused(document["id"]) == (409, "result-not-ready", True)
    user.finished(job["id"])
    result = user.http.get(f"/documents/{document['id']}/result")
    assert result.status_code == 200
    assert (result.json()["job_id"], result.json()["input_sha256"]) == (job["id"], document["sha256"])
    assert result.json()["params"] == {"seconds": 0.7, "fail": None, "flaky": 0}
    assert (result.json()["processor"], result.json()["processor_version"]) == ("simulated", "1")
    again = user.start(document["id"], params={"seconds": 0.7}, force=True)
    assert refused(document["id"]) == (409, "result-not-ready", True)
    user.finished(again["id"])
    assert user.http.get(f"/documents/{document['id']}/result").json()["job_id"] == again["id"]


def test_a_locked_pdf_fails_for_good_and_says_why(user: User) -> None:
    document_id = user.upload(encrypted_pdf("a secret"))["id"]
    job = user.finished(user.start(document_id, processor="text")["id"])
    assert (job["state"], job["attempt"], job["dead"]) == ("FAILED", 1, False)
    assert job["error"]["code"] == "password-protected"
    assert user.document(document_id)["error"] == job["error"]


def test_jobs_are_private(user: User, stranger: User) -> None:
    _, job = ended(user)
    for call in (stranger.http.get(f"/jobs/{job['id']}"), cancel(stranger, job["id"]), cancel(user, str(uuid4()))):
        assert (call.status_code, call.json()["code"]) == (404, "not-found")
    assert stranger.http.get("/jobs").json() == {"items": [], "next_cursor": None}


def test_jobs_are_listed_newest_first_page_by_page(user: User) -> None:
    jobs = [ended(user, fail="permanent" if n % 2 else None)[1] for n in range(5)][::-1]
    whole = user.http.get("/jobs").json()
    assert whole == {"items": jobs, "next_cursor": None}
    pages, cursor = [], None
    while not pages or cursor:
        page = user.http.get("/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        pages.append(page["items"])
        cursor = page["next_cursor"]
    assert pages == [jobs[:2], jobs[2:4], jobs[4:]]
    for state in ("SUCCEEDED", "FAILED", "QUEUED"):
        expected = [job for job in jobs if job["state"] == state]
        assert user.http.get("/jobs", params={"state": state}).json()["items"] == expected
    exact = user.http.get("/jobs", params={"state": "FAILED", "limit": 2}).json()
    assert (len(exact["items"]), exact["next_cursor"]) == (2, None)


@pytest.mark.parametrize(
    "query", [{"state": "LOST"}, {"dead": "maybe"}, {"limit": 0}, {"limit": 101}, {"cursor": "W10"}, {"cursor": "?"}]
)
def test_a_list_refuses_what_it_does_not_understand(user: User, query: dict[str, Any]) -> None:
    assert user.http.get("/jobs", params=query).status_code == 422
