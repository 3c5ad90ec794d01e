"""Processors that misbehave hurt only their own jobs; processes of different versions run what each of them can."""

import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx
from tests.support.metrics import metric
from tests.support.other_processors import VARIABLE
from tests.support.processors import LISTED
from tests.support.server import Server, until
from tests.support.user import User
from tests.support.zygote import run


def server(data_dir: Path, processors: str, **settings: str) -> Server:
    return Server(data_dir, {VARIABLE: processors, **settings}, module="tests.support.other_processors")


def started(user: User, processor: str, **params: Any) -> tuple[str, str]:
    """The ids of a new document and of its job."""
    document_id = user.upload()["id"]
    return document_id, user.start(document_id, processor=processor, params=params)["id"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("faulty") / "var", "faulty@1 reader") as running:
        yield running


OUTPUTS = {
    "datetime": "invalid-output",
    "set": "invalid-output",
    "list": "invalid-output",
    "nan": "invalid-output",
    "key": "invalid-output",
    "surrogate": "invalid-output",
    "large": "output-too-large",
    "exit": "processor-exited",
    "interrupt": "processor-exited",
    "child-exit": "processor-exited",
    "deep": "invalid-output",
    "misfit": "result-invalid",
    "misfit-item": "result-invalid",
    "misfit-beside-long": "result-invalid",
    "detail": "odd?code",
}


@pytest.mark.parametrize("fault", OUTPUTS)
def test_what_no_result_can_be_is_a_failure_at_once(faulty: Server, fault: str) -> None:
    user = faulty.register()
    document_id, job_id = started(user, "faulty", fault=fault)
    job = user.finished(job_id)
    assert (job["state"], job["attempt"], job["dead"]) == ("FAILED", 1, False)
    assert job["error"]["code"] == OUTPUTS[fault]
    assert user.document(document_id)["error"] == job["error"]
    _, healthy = started(user, "faulty")
    assert user.finished(healthy)["state"] == "SUCCEEDED", "the server lives"


def test_what_does_not_fit_says_where_and_nothing_of_the_file(faulty: Server) -> None:
    user = faulty.register()
    for fault, place in (
        ("misfit", "`name`: string_type"),
        ("misfit-item", "`items`: int_parsing"),
        ("misfit-beside-long", "`name`: string_type"),
    ):
        _, job_id = started(user, "faulty", fault=fault)
        error = user.finished(job_id)["error"]
        assert error["detail"] == f"The processor returned what does not fit its own description, at {place}."
    assert {line["model"] for line in faulty.logs("job.result_invalid")} == {"Made"}


def seen(user: User, document_id: str, **params: str) -> dict[str, Any]:
    """What a processor is given for a document, in a new job."""
    job = user.finished(user.start(document_id, processor="reader", params=params, force=True)["id"])
    data: dict[str, Any] = user.http.get(job["result_url"]).json()["data"]
    return data | {"job": job["id"]}


def test_a_processor_knows_its_document(faulty: Server) -> None:
    user = faulty.register()
    document = user.upload(name="a.pdf", metadata={"folder": "in", "tags": ["a"]})
    given = seen(user, document["id"])
    assert (given["document_id"], given["owner_id"]) == (document["id"], document["owner_id"])
    assert (given["job_id"], given["filename"], given["earlier"]) == (given["job"], "a.pdf", None)
    assert given["metadata"] == {"description": None, "folder": "in", "tags": ["a"]}
    assert user.http.patch(f"/documents/{document['id']}", json={"folder": "out"}).status_code == 200
    assert seen(user, document["id"])["metadata"]["folder"] == "out"


def test_a_processor_reads_the_last_good_result_of_another(faulty: Server) -> None:
    """A small one, and one in a file; not one of another document."""
    user = faulty.register()
    document_id, job_id = started(user, "faulty")
    user.finished(job_id)
    assert seen(user, document_id, of="faulty")["earlier"] == {"name": "faulty", "version": "1"}
    user.finished(user.start(document_id, processor="faulty", params={"fault": "big"})["id"])
    big = {"text": "letters " * 20_000, "items": [{"number": 1}] * 9}
    assert seen(user, document_id, of="faulty")["earlier"] == big
    user.finished(user.start(document_id, processor="faulty", params={"fault": "misfit"})["id"])
    assert seen(user, document_id, of="faulty")["earlier"] == big
    assert seen(user, user.upload()["id"], of="faulty")["earlier"] is None


def test_what_a_processor_does_not_read_is_refused_when_it_is_asked_for(faulty: Server) -> None:
    user = faulty.register()
    wanted = {"processor": "reader"}
    letter, report = user.upload(docx(), "letter.docx", content_type=DOCX_TYPE)["id"], user.upload()["id"]
    refused = user.http.post(f"/documents/{letter}/process", json=wanted)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported-content-type")
    told = "The processor reader reads only application/pdf."
    assert refused.json()["errors"] == [{"detail": told, "pointer": "/processor"}]
    assert user.document(letter)["status"] == "UPLOADED"
    batch = user.http.post("/documents/process-batch", json={"document_ids": [letter, report], **wanted}).json()
    assert batch["skipped"] == [{"document_id": letter, "code": "unsupported-content-type", "detail": told}]
    assert [each["document_id"] for each in batch["accepted"]] == [report]
    before = user.http.get("/documents?count=true").json()["total"]
    refused = user.post_file(docx(), "letter.docx", content_type=DOCX_TYPE, metadata={"process": wanted})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported-content-type")
    assert refused.json()["errors"][0]["pointer"] == "/metadata/process/processor"
    assert user.http.get("/documents?count=true").json()["total"] == before
    listed = {each["name"]: each for each in user.http.get("/processors").json()["items"]}
    assert (listed["reader"]["content_types"], listed["reader"]["at_once"]) == ([PDF_TYPE], 1)
    assert (listed["faulty"]["content_types"], listed["faulty"]["at_once"]) == ([PDF_TYPE, DOCX_TYPE], None)


def test_a_processor_that_cancels_itself_has_failed_and_is_tried_again(faulty: Server) -> None:
    user = faulty.register()
    document_id, job_id = started(user, "faulty", fault="cancel")
    until(lambda: "retried" in user.story(document_id))
    assert user.job(job_id)["error"]["code"] == "processor-error"
    user.http.post(f"/jobs/{job_id}/cancel")


def test_a_processor_that_goes_on_when_cancelled_does_not_keep_the_process_from_its_stop(tmp_path: Path) -> None:
    with server(tmp_path / "var", "faulty@1", DRAIN_SECONDS="0.5") as running:
        user = running.register()
        _, job_id = started(user, "faulty", fault="deaf")
        until(lambda: user.job(job_id)["state"] == "RUNNING")
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 6


def test_a_processor_that_blocks_the_event_loop_is_named_in_the_log(faulty: Server) -> None:
    user = faulty.register()
    _, job_id = started(user, "faulty", fault="block")
    assert user.finished(job_id)["state"] == "SUCCEEDED"
    (line,) = [each for each in faulty.logs("event_loop.blocked") if each.get("job_id") == job_id]
    assert (line["queue"], line["level"]) == ("process/faulty@1", "warning")
    assert 1 <= line["seconds"] < 2
    resumed = until(lambda: faulty.logs("event_loop.resumed"))[-1]
    assert (resumed["level"], resumed["seconds"] >= line["seconds"]) == ("warning", True)
    late = metric(faulty, "event_loop_lag_seconds_count") - metric(faulty, "event_loop_lag_seconds_bucket", le="1.0")
    assert late >= 1


def test_each_job_runs_at_its_version_and_burns_no_try_elsewhere(tmp_path: Path) -> None:
    """Two versions of the service side by side on one database."""
    data_dir = tmp_path / "var"
    with server(data_dir, "both@1 changed@1 old@1") as old, server(data_dir, "both@1 changed@2 new@1") as new:
        user = old.register()
        at_new = user.at(new)
        jobs = [
            (*started(each, name, seconds=0.2), name, version)
            for _ in range(5)
            for each, name, version in (
                (user, "both", "1"),
                (user, "changed", "1"),
                (user, "old", "1"),
                (at_new, "both", "1"),
                (at_new, "changed", "2"),
                (at_new, "new", "1"),
            )
        ]
        for document_id, job_id, name, version in jobs:
            job = user.finished(job_id)
            assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
            result = user.http.get(f"/documents/{document_id}/results/{name}").json()
            assert (result["processor_version"], result["data"]) == (version, {"name": name, "version": version})
            assert user.story(document_id) == ["queued", "started", "succeeded"]


def test_what_nobody_can_run_stays_queued_and_is_an_alarm(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    with server(data_dir, "changed@1", JOB_CONCURRENCY="0") as old:
        user = old.register()
        _, job_id = started(user, "changed")
        old.stop()
        with server(data_dir, "changed@2") as new:
            user = user.at(new)
            alarm = until(lambda: new.client().get("/readyz").json()["alarms"].get("queues"))
            assert "process/changed@1 (1)" in alarm
            assert 'document_api_jobs_unserved{queue="process/changed@1"} 1.0' in new.client().get("/metrics").text
            job = user.job(job_id)
            assert (job["state"], job["attempt"]) == ("QUEUED", 0)
            new.stop()
        with server(data_dir, "changed@1") as back:
            assert user.at(back).finished(job_id)["attempt"] == 1
            assert "queues" not in back.client().get("/readyz").json()["alarms"]


def test_the_operator_chooses_the_processors_and_the_default(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"PROCESSORS": "text"}) as chosen:
        user = chosen.register()
        document_id = user.upload()["id"]
        accepted = user.http.post(f"/documents/{document_id}/process")
        assert (accepted.status_code, accepted.json()["job"]["processor"]) == (202, "text")
        assert user.finished(accepted.json()["job"]["id"])["state"] == "SUCCEEDED"
        refused = user.http.post(f"/documents/{document_id}/process", json={"processor": "simulated"})
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown-processor")
        described = user.http.get("/openapi.json").json()["components"]["schemas"]
        assert described["ProcessorName"]["enum"] == ["text"]
        assert (described["ProcessText"]["required"], "ProcessSimulated" in described) == ([], False)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("scan", f"there is no processor scan; there are {LISTED}"),
        ("acme.ocr:Ocr", "acme.ocr:Ocr: it cannot be imported: ModuleNotFoundError: No module named 'acme'"),
    ],
)
def test_a_processor_that_is_not_there_ends_the_start_with_one_line(tmp_path: Path, named: str, reason: str) -> None:
    settings = {"DATA_DIR": str(tmp_path / "var"), "PORT": "0", "PROCESSORS": f"text,{named}"}
    done = run("serve", PATH=os.environ["PATH"], **settings)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line == f"configuration: PROCESSORS: {reason}"


@pytest.mark.parametrize("chosen", ["", "simulated"])
def test_production_says_what_its_operator_has_not_chosen(chosen: str, tmp_path: Path) -> None:
    """That its results are simulated, its trail is signed with a key that will change, and nobody can add a webhook."""
    settings = {"ENVIRONMENT": "production", "JWT_SECRET": "x" * 32}
    settings |= {"PROCESSORS": chosen, "AUDIT_KEY": chosen and "y" * 32}
    settings |= {"ENCRYPTION_KEYS": chosen and urlsafe_b64encode(b"k" * 32).decode()}
    with Server(tmp_path / "var", settings) as production:
        alarms = httpx2.get(f"{production.url}/readyz", timeout=60).json()["alarms"]
        told = {line["alarm"]: line["detail"] for line in production.logs("server.alarm")}
        for name in ("audit", "encryption", "results"):
            assert told.get(name) == alarms.get(name)
            assert (name in told) is not bool(chosen)
