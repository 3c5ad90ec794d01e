"""An upload that asks for its processing: document and job are accepted together, or neither is."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

QUICK = {"process": {"params": {"seconds": 0}}}


def documents_of(user: User) -> list[Any]:
    items: list[Any] = user.http.get("/documents").json()["items"]
    return items


def test_a_document_is_processed_as_soon_as_it_is_stored(user: User) -> None:
    asked = {"folder": "f", "process": {"processor": "text", "params": {"max_pages": 3}}}
    answer = user.post_file(pdf("at once"), metadata=asked)
    assert answer.status_code == 201, answer.text
    uploaded = answer.json()
    job = uploaded.pop("job")
    assert answer.headers["location"] == f"/documents/{uploaded['id']}"
    assert (uploaded["status"], uploaded["job_id"], uploaded["folder"]) == ("PROCESSING", job["id"], "f")
    assert (job["state"], job["processor"], job["params"]["max_pages"]) == ("QUEUED", "text", 3)
    assert user.finished(job["id"])["state"] == "SUCCEEDED"
    assert user.http.get(f"/documents/{uploaded['id']}/result").json()["data"]["text"] == "at once 1"
    events = [each["event"] for each in user.http.get(f"/documents/{uploaded['id']}/timeline").json()["items"]]
    assert events[:4] == ["document.uploaded", "document.status_changed", "job.queued", "job.started"]


def test_an_upload_that_asks_for_nothing_has_no_job(user: User) -> None:
    for metadata in (None, {}, {"process": None}):
        uploaded = user.upload(metadata=metadata)
        assert uploaded["status"] == "UPLOADED"
        assert uploaded == user.document(uploaded["id"])


def test_the_default_processor_is_asked_for_by_an_empty_object(user: User) -> None:
    assert user.upload(metadata={"process": {}})["job"]["processor"] == "simulated"


def test_the_form_asks_for_the_default_processor_by_true(user: User) -> None:
    """As forms do that have a box to tick."""

    def sent(**fields: str) -> Any:
        answer = user.http.post("/documents", files={"file": ("a.pdf", pdf(), "application/pdf")}, data=fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    job = sent(process="true", process_params='{"seconds": 0}')["job"]
    assert (job["processor"], job["params"]["seconds"]) == ("simulated", 0)
    assert sent(process="false", process_params='{"seconds": 0}')["status"] == "UPLOADED"


@pytest.mark.parametrize(
    ("asked", "code", "pointer"),
    [
        ({"processor": "none"}, "unknown-processor", "/metadata/process/processor"),
        ({"params": {"seconds": 61}}, "validation-failed", "/metadata/process/params/seconds"),
        ({"params": {"seconds": "\0"}}, "validation-failed", "/metadata/process/params/seconds"),
        ({"force": True}, "validation-failed", "/metadata/process/force"),
        ("text", "validation-failed", "/metadata/process"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_kept(user: User, asked: Any, code: str, pointer: str) -> None:
    answer = user.post_file(pdf(), metadata={"process": asked})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert pointer in [each["pointer"] for each in answer.json()["errors"]]
    assert documents_of(user) == []


def test_only_an_upload_takes_it(user: User) -> None:
    document_id = user.upload()["id"]
    patched = user.http.patch(f"/documents/{document_id}", json=QUICK)
    upload = {"filename": "a.pdf", "content_type": "application/pdf", "size": 10, "metadata": QUICK}
    announced = user.http.post("/documents/initiate-upload", json=upload)
    for answer, pointer in ((patched, "/process"), (announced, "/metadata/process")):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_repeated_upload_starts_no_second_job(user: User) -> None:
    content = pdf("once")
    first = user.post_file(content, metadata=QUICK, key="k")
    user.finished(first.json()["job"]["id"])
    named = {"process": QUICK["process"] | {"processor": "simulated"}}
    again = user.post_file(content, metadata=named, key="k")
    assert (again.status_code, again.content, again.headers["idempotent-replayed"]) == (201, first.content, "true")
    other = user.post_file(content, metadata={"process": {"processor": "text"}}, key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len(user.http.get("/jobs").json()["items"]) == len(documents_of(user)) == 1


def test_a_job_too_many_refuses_the_document_and_its_file(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"QUOTA_JOBS": "1"}) as server:
        user = server.register()
        long = {"process": {"params": {"seconds": 60}}}
        job_id = user.upload(metadata=long)["job"]["id"]
        refused = user.post_file(pdf(), metadata=long)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-jobs")
        assert len(documents_of(user)) == 1
        until(lambda: len([*(server.data_dir / "files/documents").glob("*/*")]) == 1)
        user.http.post(f"/jobs/{job_id}/cancel")


@pytest.mark.parametrize("point", ["upload.after_rename:1", "upload.after_commit:1"])
def test_a_killed_server_has_accepted_both_or_neither(tmp_path: Path, point: str) -> None:
    content = pdf("killed")
    with Server(tmp_path / "var") as server:
        user = server.register()
        server.stop()
        user = server.restarted(user, FAULT=point)
        with pytest.raises(httpx2.TransportError):
            user.post_file(content, metadata=QUICK, key="k")
        user = server.restarted(user, FAULT="")
        accepted = [each["job_id"] for each in documents_of(user)]
        assert len(accepted) == (point == "upload.after_commit:1")
        answer = user.post_file(content, metadata=QUICK, key="k")
        assert answer.status_code == 201
        assert user.finished(answer.json()["job"]["id"])["state"] == "SUCCEEDED"
        assert [each["job_id"] for each in documents_of(user)] == [answer.json()["job"]["id"]]
