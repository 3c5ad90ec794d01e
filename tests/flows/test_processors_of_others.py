"""Processors that misbehave hurt only their own jobs; processes of different versions run what each of them can."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.other_processors import VARIABLE
from tests.support.server import Server, until
from tests.support.user import User


def server(data_dir: Path, processors: str, **settings: str) -> Server:
    return Server(data_dir, {VARIABLE: processors, **settings}, module="tests.support.other_processors")


def started(user: User, processor: str, **params: Any) -> tuple[str, str]:
    """The ids of a new document and of its job."""
    document_id = user.upload()["id"]
    return document_id, user.start(document_id, processor=processor, params=params)["id"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("faulty") / "var", "faulty@1") as running:
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
            assert 'jobs_unserved{queue="process/changed@1"} 1.0' in new.client().get("/metrics").text
            job = user.job(job_id)
            assert (job["state"], job["attempt"]) == ("QUEUED", 0)
            new.stop()
        with server(data_dir, "changed@1") as back:
            assert user.at(back).finished(job_id)["attempt"] == 1
            assert "queues" not in back.client().get("/readyz").json()["alarms"]
