"""POST /documents/process-batch: every document is named, and each is processed as if it were the only one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, insert, select
from uuid_utils.compat import uuid7

from app.documents.models import documents
from app.files.models import files
from app.processing.batch import PART
from tests.support import databases
from tests.support.direct_uploads import announce
from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import User

QUICK = {"seconds": 0}
LONG = {"seconds": 60}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[User]:
    """A user of a server that the test may stop and start."""
    with Server(tmp_path / "var") as server:
        yield server.register()


def batch(user: User, *, key: str | None = None, **body: Any) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return user.http.post("/documents/process-batch", json={"params": QUICK} | body, headers=headers)


def answered(user: User, **body: Any) -> tuple[list[str], dict[str, str]]:
    """The ids of the documents that are accepted, and the codes of those that are skipped."""
    answer = batch(user, **body)
    assert answer.status_code in {200, 202}, answer.text
    found = answer.json()
    return [each["document_id"] for each in found["accepted"]], {
        each["document_id"]: each["code"] for each in found["skipped"]
    }


def uploaded(user: User, count: int) -> list[str]:
    """The ids of so many new documents."""
    clients = [user.at(user.server) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        return [*threads.map(lambda n: str(clients[n % 4].upload(pdf(str(n)))["id"]), range(count))]


def copies(user: User, document_id: str, count: int) -> None:
    """So many more documents that have the file of this one."""
    with databases.engine(user.server.data_dir).begin() as conn:
        row = conn.execute(select(documents).where(documents.c.id == UUID(document_id))).mappings().one()
        conn.execute(insert(documents), [dict(row) | {"id": uuid7()} for _ in range(count)])


def test_each_document_is_accepted_or_skipped_as_it_would_be_alone(user: User) -> None:
    new, running, busy, done = (user.upload()["id"] for _ in range(4))
    waiting = announce(user, pdf())["document_id"]
    missing, foreign = str(uuid4()), user.server.register().upload()["id"]
    running_job = user.start(running, params=QUICK | {"seconds": 30})
    user.start(busy, processor="simulated", params=LONG)
    user.finished(user.start(done, params=QUICK)["id"])
    ids = [new, done, waiting, missing, foreign, busy, new]
    answer = batch(user, document_ids=ids)
    assert answer.status_code == 202
    accepted = {each["document_id"]: each for each in answer.json()["accepted"]}
    assert {name: each["started"] for name, each in accepted.items()} == {new: True, done: False}
    assert accepted[done]["job_id"] == user.document(done)["job_id"]
    assert user.finished(accepted[new]["job_id"])["state"] == "SUCCEEDED"
    skipped = {each["document_id"]: each["code"] for each in answer.json()["skipped"]}
    assert skipped == {
        waiting: "upload-incomplete", missing: "not-found", foreign: "not-found", busy: "job-in-progress"
    }  # fmt: skip
    assert answer.json()["next_cursor"] is None
    same = batch(user, document_ids=[running], params={"seconds": 30})
    assert (same.status_code, same.json()["accepted"]) == (
        200,
        [{"document_id": running, "job_id": running_job["id"], "started": False}],
    )
    for document_id in (running, busy):
        user.http.post(f"/jobs/{user.document(document_id)['job_id']}/cancel")


def test_a_filter_chooses_the_oldest_first(user: User) -> None:
    wanted = [user.upload(metadata={"folder": "a", "tags": ["t"]})["id"] for _ in range(3)]
    others = [user.upload(metadata={"folder": "b"})["id"] for _ in range(2)]
    assert answered(user, filter={"folder": "a", "tag": "t", "status": "UPLOADED"}) == (wanted, {})
    assert answered(user, filter={"folder": "none"}) == ([], {})
    assert answered(user, filter={"created_before": "2020-01-01T00:00:00Z"}) == ([], {})
    keyed = batch(user, filter={"folder": "none"}, key="new")
    assert (keyed.status_code, "idempotent-replayed" in keyed.headers) == (200, False)
    accepted, _ = answered(user, filter={})
    assert accepted == wanted + others


@pytest.mark.long
def test_a_thousand_are_processed_and_the_rest_after_them(user: User) -> None:
    """The filter goes on matching what was accepted."""
    first = uploaded(user, 1)
    copies(user, first[0], 1000)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = batch(user, filter={"content_type": "application/pdf"}, **cursor)
        assert answer.status_code == 202, answer.text
        found += [each["document_id"] for each in answer.json()["accepted"]]
        if not (end := answer.json()["next_cursor"]):
            break
        assert len(found) == 1000
        cursor = {"cursor": end}
    assert len(found) == len(set(found)) == 1001
    refused = batch(user, document_ids=[str(uuid4()) for _ in range(1001)])
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/document_ids")
    made_up = batch(user, filter={}, cursor="x")
    assert (made_up.status_code, made_up.json()["code"]) == (422, "invalid-cursor")


def test_batches_at_once_accept_each_document_once(own: User) -> None:
    ids = uploaded(own, 3 * PART)

    def accept(n: int) -> httpx2.Response:
        return batch(own.at(own.server), document_ids=ids[n:] + ids[:n], params=LONG)

    with ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(accept, range(4))]
    assert {answer.status_code for answer in answers} <= {200, 202}, [answer.text[:200] for answer in answers]
    started = [each["document_id"] for answer in answers for each in answer.json()["accepted"] if each["started"]]
    assert sorted(started) == sorted(ids)
    own.server.kill()


def test_what_cannot_be_accepted_is_left_as_it_was(user: User) -> None:
    """The row of the file is missing, as after a backup that is damaged."""
    damaged, whole = user.upload()["id"], user.upload()["id"]
    with databases.engine(user.server.data_dir).begin() as conn:
        conn.execute(delete(files).where(files.c.id == UUID(damaged)))
    assert answered(user, document_ids=[damaged, whole]) == ([whole], {damaged: "not-found"})
    assert (user.document(damaged)["status"], user.document(damaged)["job_id"]) == ("UPLOADED", None)


def test_jobs_too_many_are_skipped(own: User) -> None:
    own.server.stop()
    user = own.server.restarted(own, QUOTA_JOBS="5")
    ids = uploaded(user, 8)
    accepted, skipped = answered(user, document_ids=ids, params=LONG)
    assert accepted == ids[:5]
    assert skipped == dict.fromkeys(ids[5:], "too-many-jobs")
    for each in user.http.get("/jobs").json()["items"]:
        user.http.post(f"/jobs/{each['id']}/cancel")


def test_a_repeated_request_with_a_key_gets_the_same_answer(user: User) -> None:
    for _ in range(3):
        user.upload()
    first = batch(user, filter={"status": "UPLOADED"}, key="k")
    assert len(first.json()["accepted"]) == 3
    for each in first.json()["accepted"]:
        user.finished(each["job_id"])
    later = user.upload()["id"]
    again = batch(user, filter={"status": "UPLOADED"}, key="k")
    assert (again.status_code, again.content, again.headers["idempotent-replayed"]) == (202, first.content, "true")
    assert user.document(later)["status"] == "UPLOADED"
    other = batch(user, filter={}, key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len(user.http.get("/jobs").json()["items"]) == 3


def test_a_batch_that_was_cut_off_is_completed_by_its_repetition(own: User) -> None:
    """The first part is committed, and the server killed before the second."""
    ids = uploaded(own, PART + 2)
    own.server.stop()
    user = own.server.restarted(own, FAULT="batch.after_part:1")
    with pytest.raises(httpx2.TransportError):
        batch(user, document_ids=ids, key="k", force=True)
    user = user.server.restarted(user, FAULT="")
    jobs = {each["document_id"]: each["id"] for each in user.http.get("/jobs", params={"limit": 100}).json()["items"]}
    assert set(jobs) == set(ids[:PART])
    for job_id in jobs.values():
        assert user.finished(job_id)["state"] == "SUCCEEDED"
    repeated = batch(user, document_ids=ids, key="k", force=True).json()
    again = {each["document_id"]: each["job_id"] for each in repeated["accepted"]}
    assert list(again) == ids
    assert {name: again[name] for name in jobs} == jobs
    assert user.http.get("/jobs", params={"limit": 1, "count": True}).json()["total"] == PART + 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"document_ids": [str(uuid4())], "filter": {}}, ""),
        ({"document_ids": []}, "/document_ids"),
        ({"document_ids": [str(uuid4())], "cursor": "x"}, ""),
        ({"document_ids": ["x"]}, "/document_ids/0"),
        ({"filter": {"folders": "x"}}, "/filter/folders"),
        ({"filter": {"q": "\0"}}, "/filter/q"),
        ({"filter": {"sort": "size"}}, "/filter/sort"),
        ({"filter": {"created_before": {}}}, "/filter/created_before"),
        ({"filter": {"created_after": 5}}, "/filter/created_after"),
        ({"filter": {}, "params": {"seconds": 61}}, "/params/seconds"),
    ],
)
def test_what_is_wrong_is_named(user: User, body: dict[str, Any], pointer: str) -> None:
    answer = batch(user, **body)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


def test_ids_and_a_filter_exclude_each_other_in_words(user: User) -> None:
    (error,) = batch(user, document_ids=[str(uuid4())], filter={}).json()["errors"]
    assert error["detail"] == "Give either document_ids or filter, and not both"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(user: User, method: str) -> None:
    answer = user.http.request(method, "/documents/process-batch")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
