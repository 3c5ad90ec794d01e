"""Files that an attempt makes: all of them are published with its result, exactly once, or none is."""

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.files.models import files
from app.processing.models import result_files
from tests.support import databases
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

PROCESSORS = {"PROCESSORS": f"simulated,text,{NAMED}"}
CONTENT = pdf("one of many")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("outputs") / "var", PROCESSORS) as running:
        yield running
        ledger = Ledger(running.data_dir)
        ledger.settle()
        ledger.check()


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


def made_of(user: User, document_id: str, **params: Any) -> dict[str, Any]:
    """The job that makes something of a document, once it is finished."""
    return user.finished(user.start(document_id, processor="maker", params=params)["id"])


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    answer = user.http.get(f"/documents/{document_id}/children", params={"limit": 100})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def used(user: User) -> tuple[int, int]:
    """Bytes and documents of the account."""
    usage = user.http.get("/auth/me").json()["usage"]
    return usage["bytes"], usage["documents"]


def stored(server: Server) -> int:
    return len(Ledger(server.data_dir).files())


def ids(server: Server) -> set[UUID]:
    """Of the files that are stored. Those of other tests may go meanwhile, and none may come."""
    return set(Ledger(server.data_dir).files())


def test_children_are_documents_like_any(user: User) -> None:
    about = {"description": "the whole", "folder": "a/b", "tags": ["x"]}
    parent = user.upload(CONTENT, "whole.pdf", metadata=about)
    job = made_of(user, parent["id"], documents=3, metadata={"tags": ["part"]})
    assert job["state"] == "SUCCEEDED"
    found = children(user, parent["id"])
    result = user.http.get(f"/documents/{parent['id']}/result").json()["data"]
    assert [each["id"] for each in found] == result["documents"]
    assert [each["filename"] for each in found] == ["part 0.pdf", "part 1.pdf", "part 2.pdf"]
    for number, each in enumerate(found):
        assert each["parent_id"] == parent["id"]
        assert each["status"] == "UPLOADED"
        assert {name: each[name] for name in about} == about | {"tags": ["part"]}
        content = user.http.get(f"/documents/{each['id']}/content").content
        assert content == CONTENT + f"\n% {number}\n%%EOF\n".encode()
        assert len(content) == each["size"]
    assert used(user) == (len(CONTENT) + sum(each["size"] for each in found), 4)
    listed = user.http.get("/documents", params={"parent_id": parent["id"], "sort": "created_at"}).json()["items"]
    assert listed == found
    assert parent["parent_id"] is None
    told = user.http.get(f"/documents/{parent['id']}/timeline").json()["items"]
    assert [each["data"] for each in told if each["event"] == "document.children_published"] == [
        {"processor": "maker", "children": 3}
    ]


def test_children_page_by_page(user: User) -> None:
    parent = user.upload()["id"]
    made_of(user, parent, documents=5)
    pages, cursor = [], None
    while not pages or cursor:
        query = {"limit": 2, "count": "true"} | ({"cursor": cursor} if cursor else {})
        page = user.http.get(f"/documents/{parent}/children", params=query).json()
        pages.append([each["filename"] for each in page["items"]])
        assert page["total"] == 5
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert list(chain(*pages)) == [f"part {number}.pdf" for number in range(5)]


def test_children_are_their_owner_s(server: Server, user: User) -> None:
    parent = user.upload()["id"]
    made_of(user, parent, documents=1, files=1)
    stranger = server.register()
    for path in ("children", "results/maker/files", "results/maker/files/0.bin"):
        assert stranger.http.get(f"/documents/{parent}/{path}").status_code == 404
    assert stranger.http.get("/documents", params={"parent_id": parent}).json()["items"] == []


def test_children_stay_when_their_parent_goes(user: User) -> None:
    parent = user.upload()["id"]
    made_of(user, parent, documents=2)
    assert user.http.delete(f"/documents/{parent}?permanent=true").status_code == 204
    assert user.http.get(f"/documents/{parent}/children").status_code == 404
    left = user.http.get("/documents", params={"parent_id": parent}).json()["items"]
    assert [each["parent_id"] for each in left] == [parent, parent]


def test_work_done_again_makes_more(user: User) -> None:
    parent = user.upload()["id"]
    made_of(user, parent, documents=2)
    again = user.process(parent, processor="maker", params={"documents": 2})
    assert (again.status_code, again.json()["started"]) == (200, False)
    assert len(children(user, parent)) == 2
    user.finished(user.start(parent, processor="maker", params={"documents": 2}, force=True)["id"])
    assert len(children(user, parent)) == 4


def test_files_of_a_result(server: Server, user: User) -> None:
    before = ids(server)
    document_id = user.upload(CONTENT)["id"]
    made_of(user, document_id, files=2)
    here = f"/documents/{document_id}/results/maker/files"
    listed = user.http.get(here).json()["items"]
    content = CONTENT + b"\n% 1\n%%EOF\n"
    assert [(each["name"], each["content_type"], each["url"]) for each in listed] == [
        (f"{number}.bin", "image/png", f"{here}/{number}.bin") for number in range(2)
    ]
    assert listed[1]["size"] == len(content)
    whole = user.http.get(listed[1]["url"])
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, content, "image/png")
    assert whole.headers["ETag"] == f'"{listed[1]["sha256"]}"'
    assert whole.headers["Content-Disposition"].startswith("attachment")
    part = user.http.get(listed[1]["url"], headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, content[5:10])
    assert part.headers["Content-Range"] == f"bytes 5-9/{len(content)}"
    assert user.http.get(listed[1]["url"], headers={"Range": "bytes=99999-"}).status_code == 416
    assert user.http.get(listed[1]["url"], headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    head = user.http.head(listed[1]["url"])
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(content)))
    for missing in (f"{here}/2.bin", f"/documents/{document_id}/results/text/files"):
        assert user.http.get(missing).status_code == 404
    assert used(user) == (len(CONTENT) + sum(each["size"] for each in listed), 1)
    assert len(ids(server) - before) == 3
    assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
    assert used(user) == (0, 0)
    until(lambda: not ids(server) - before)


def test_files_of_a_result_that_is_replaced_are_swept(tmp_path: Path) -> None:
    with Server(tmp_path / "var", PROCESSORS | {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        made_of(user, document_id, files=3)
        assert stored(server) == 4
        made_of(user, document_id, files=1, size=9)
        assert [
            each["name"] for each in user.http.get(f"/documents/{document_id}/results/maker/files").json()["items"]
        ] == ["0.bin"]
        assert used(user) == (2 * len(CONTENT) + len("\n% 0\n%%EOF\n") + 9, 1)
        until(lambda: stored(server) == 2)


FAILURES = {
    "permanent": "maker-fault",
    "no-document": "output-not-accepted",
    "metadata": "invalid-metadata",
}


@pytest.mark.parametrize("fault", FAILURES)
def test_an_attempt_that_fails_leaves_nothing(server: Server, user: User, fault: str) -> None:
    document_id, before = user.upload(CONTENT)["id"], ids(server)
    job = made_of(user, document_id, documents=2, files=1, fault=fault)
    assert (job["state"], job["error"]["code"]) == ("FAILED", FAILURES[fault])
    assert children(user, document_id) == []
    assert used(user) == (len(CONTENT), 1)
    assert not ids(server) - before


@pytest.mark.parametrize("fault", ["crash", "name", "twice", "media-type"])
def test_an_attempt_that_breaks_leaves_nothing(tmp_path: Path, fault: str) -> None:
    with Server(tmp_path / "var", PROCESSORS | {"JOB_MAX_TRIES": "1"}) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        job = made_of(user, document_id, documents=1, files=1, fault=fault)
        assert (job["state"], job["error"]["code"]) == ("FAILED", "processor-error")
        assert (children(user, document_id), stored(server)) == ([], 1)


def test_a_job_that_is_cancelled_leaves_nothing(server: Server, user: User) -> None:
    document_id, before = user.upload()["id"], ids(server)
    job_id = user.start(document_id, processor="maker", params={"documents": 2, "seconds": 30})["id"]
    until(lambda: len(ids(server) - before) == 2)
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    until(lambda: not ids(server) - before)
    assert children(user, document_id) == []


@pytest.mark.parametrize(
    ("quota", "code", "params"),
    [
        ("QUOTA_DOCUMENTS", "document-quota-exceeded", {"documents": 3}),
        ("QUOTA_BYTES", "storage-quota-exceeded", {"documents": 2}),
        ("QUOTA_BYTES", "storage-quota-exceeded", {"files": 2}),
        ("MAX_UPLOAD_BYTES", "output-too-large", {"files": 1, "size": 1000}),
    ],
)
def test_what_is_too_much_is_not_published(tmp_path: Path, quota: str, code: str, params: dict[str, Any]) -> None:
    limit = "3" if quota == "QUOTA_DOCUMENTS" else str(2 * len(CONTENT))
    with Server(tmp_path / "var", PROCESSORS | {quota: limit}) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        job = made_of(user, document_id, **params)
        assert (job["state"], job["error"]["code"]) == ("FAILED", code)
        assert (children(user, document_id), used(user)) == ([], (len(CONTENT), 1))
        until(lambda: stored(server) == 1)


def test_children_are_processed_at_once(user: User) -> None:
    parent = user.upload(CONTENT)["id"]
    then = {"processor": "text", "params": {"max_pages": 1}}
    made_of(user, parent, documents=4, then=then)
    found = children(user, parent)
    assert len({each["job_id"] for each in found} - {None}) == 4
    for each in found:
        job = user.finished(each["job_id"])
        assert (job["state"], job["params"]["max_pages"]) == ("SUCCEEDED", 1)
        assert user.http.get(f"/documents/{each['id']}/result").json()["data"]["text"] == "one of many 1"


@pytest.mark.parametrize(
    ("then", "code", "pointer"),
    [
        ({"processor": "none"}, "unknown-processor", "/params/then/processor"),
        ({"processor": "text", "params": {"max_pages": 0}}, "validation-failed", "/params/then/params/max_pages"),
        ({"processor": "text", "odd": 1}, "validation-failed", "/params/then/odd"),
        (
            {"processor": "maker", "params": {"then": {"processor": "text"}}},
            "validation-failed",
            "/params/then",
        ),
    ],
)
def test_what_cannot_be_done_then_is_refused_at_once(user: User, then: Any, code: str, pointer: str) -> None:
    answer = user.process(user.upload()["id"], processor="maker", params={"documents": 1, "then": then})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert pointer in (problem.get("pointer"), *(each["pointer"] for each in problem.get("errors", [])))


def test_what_does_not_read_what_is_made_fails_at_once(tmp_path: Path) -> None:
    convert = {"PROCESSORS": f"{PROCESSORS['PROCESSORS']},convert", "CONVERSION_URL": "http://127.0.0.1:9"}
    with Server(tmp_path / "var", convert) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        job = made_of(user, document_id, documents=2, then={"processor": "convert"})
        assert (job["state"], job["attempt"], job["error"]["code"]) == ("FAILED", 1, "unsupported-content-type")
        assert (children(user, document_id), used(user)) == ([], (len(CONTENT), 1))


def test_jobs_of_children_beyond_the_quota_are_tried_again(tmp_path: Path) -> None:
    with Server(tmp_path / "var", PROCESSORS | {"QUOTA_JOBS": "2", "JOB_MAX_TRIES": "2"}) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        job = made_of(user, document_id, documents=3, then={"processor": "text"})
        assert (job["state"], job["attempt"], job["error"]["code"]) == ("FAILED", 2, "too-many-jobs")
        assert (children(user, document_id), used(user)) == ([], (len(CONTENT), 1))


def test_the_original_goes_when_its_children_come(user: User) -> None:
    parent = user.upload(CONTENT)["id"]
    job_id = user.start(parent, processor="maker", params={"documents": 2, "delete_original": True})["id"]
    found = until(lambda: user.http.get("/documents", params={"parent_id": parent}).json()["items"])
    assert len(found) == 2
    until(lambda: user.http.get(f"/documents/{parent}").status_code == 404)
    assert user.http.get(f"/jobs/{job_id}").status_code == 404
    assert used(user) == (len(CONTENT) + sum(each["size"] for each in found), 3)
    assert user.http.post(f"/documents/{parent}/restore").json()["status"] == "COMPLETED"
    assert user.http.get(f"/jobs/{job_id}").json()["state"] == "SUCCEEDED"
    assert len(user.http.get(f"/documents/{parent}/children").json()["items"]) == 2


def test_the_original_goes_for_good_where_there_is_no_trash(tmp_path: Path) -> None:
    with Server(tmp_path / "var", PROCESSORS | {"TRASH_SECONDS": "0"}) as server:
        user = server.register()
        parent = user.upload(CONTENT)["id"]
        user.start(parent, processor="maker", params={"documents": 2, "delete_original": True})
        found = until(lambda: user.http.get("/documents", params={"parent_id": parent}).json()["items"])
        until(lambda: used(user) == (sum(each["size"] for each in found), 2))
        answer = user.http.post(f"/documents/{parent}/restore")
        assert (answer.status_code, answer.json()["code"]) == (410, "document-purged")


def test_the_original_stays_without_children(user: User) -> None:
    parent = user.upload(CONTENT)["id"]
    assert made_of(user, parent, files=1, delete_original=True)["state"] == "SUCCEEDED"
    assert user.http.get(f"/documents/{parent}").status_code == 200


def test_to_delete_the_original_takes_the_right_to_delete(user: User) -> None:
    scopes = ["documents:read", "documents:process"]
    secret = user.http.post("/api-keys", json={"name": "k", "scopes": scopes}).json()["key"]
    path = f"/documents/{user.upload()['id']}/process"
    for params in ({"delete_original": True}, {"then": {"processor": "maker", "params": {"delete_original": True}}}):
        wanted = {"processor": "maker", "params": {"documents": 1, **params}}
        with httpx2.Client(base_url=user.server.url, headers={"X-API-Key": secret}, timeout=60) as client:
            answer = client.post(path, json=wanted)
            assert (answer.status_code, answer.json()["code"]) == (403, "insufficient-scope")
            assert "documents:delete" in answer.headers["WWW-Authenticate"]


WORK = {"documents": 3, "files": 2, "then": {"processor": "simulated", "params": {"seconds": 0}}}
POINTS = [
    pytest.param("output.after_store:1", marks=pytest.mark.long),
    "output.after_store:4",
    "outputs.before_publish:1",
    "finish.before_commit:1",
]


@pytest.mark.parametrize("point", [*POINTS, pytest.param("finish.after_commit:1", marks=pytest.mark.long)])
def test_killed_at_any_point_there_are_all_or_none(tmp_path: Path, point: str) -> None:
    settings = PROCESSORS | {"FAULT": point, "LEASE_SECONDS": "1.5", "ORPHAN_GRACE_SECONDS": "1"}
    with Server(tmp_path / "var", settings, module="tests.support.impatient") as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        with pytest.raises(httpx2.TransportError):
            user.finished(user.start(document_id, processor="maker", params=WORK)["id"])
        killed_with = stored(server)
        user = server.restarted(user, FAULT="")
        job = user.finished(user.http.get("/jobs", params={"processor": "maker"}).json()["items"][0]["id"])
        tries = 1 if point.startswith("finish.after") else 2
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", tries)
        assert len(children(user, document_id)) == 3
        assert len(user.http.get(f"/documents/{document_id}/results/maker/files").json()["items"]) == 2
        until(lambda: all(each["status"] == "COMPLETED" for each in children(user, document_id)))
        ledger = Ledger(server.data_dir)
        ledger.settle()
        ledger.check()
        assert stored(server) == (6 if tries == 1 else killed_with + 5), "what the killed attempt has made is reserved"
        expire(server)
        until(lambda: stored(server) == 6)
        ledger.check()


def expire(server: Server) -> None:
    """Have the time be over for which files were reserved."""
    with databases.engine(server.data_dir).begin() as conn:
        past = datetime.now(UTC) - timedelta(seconds=1)
        conn.execute(update(files).where(files.c.discarded_at.is_not(None)).values(discarded_at=past))


def test_hundreds_that_a_killed_attempt_has_left_are_swept(tmp_path: Path) -> None:
    settings = PROCESSORS | {"FAULT": "output.after_store:150", "LEASE_SECONDS": "60", "ORPHAN_GRACE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        user.start(user.upload(CONTENT)["id"], processor="maker", params={"files": 200})
        until(lambda: server.process is not None and server.process.poll() is not None)
        assert stored(server) == 151
        server.restarted(user, FAULT="")
        time.sleep(1.5)
        assert stored(server) == 151, "an attempt that is at work may publish them"
        expire(server)
        until(lambda: stored(server) == 1)


def test_files_are_not_swept_before_they_are_published(tmp_path: Path) -> None:
    with Server(tmp_path / "var", PROCESSORS | {"ORPHAN_GRACE_SECONDS": "0.5"}) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        assert made_of(user, document_id, documents=2, files=1, seconds=3)["attempt"] == 1
        for each in children(user, document_id):
            assert user.http.get(f"/documents/{each['id']}/content").status_code == 200


@pytest.mark.long
def test_what_waited_too_long_is_made_again(tmp_path: Path) -> None:
    with Server(tmp_path / "var", PROCESSORS) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        job_id = user.start(document_id, processor="maker", params={"documents": 2, "seconds": 1.5})["id"]
        until(lambda: stored(server) == 3)
        expire(server)
        job = user.finished(job_id)
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
        assert len(children(user, document_id)) == 2


def test_a_frozen_runner_publishes_nothing_once_its_lease_is_lost(tmp_path: Path) -> None:
    settings = PROCESSORS | {"LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as first:
        user = first.register()
        document_id = user.upload(CONTENT)["id"]
        job_id = user.start(document_id, processor="maker", params={"documents": 3, "files": 1, "seconds": 2})["id"]
        until(lambda: stored(first) == 5)
        first.signal(signal.SIGSTOP)
        with Server(first.data_dir, settings) as second:
            assert user.at(second).finished(job_id)["attempt"] == 2
            first.signal(signal.SIGCONT)
            until(lambda: first.logs("job.fenced") or first.logs("job.stopped"))
            assert len(children(user, document_id)) == 3
            until(lambda: stored(second) == 5)
            ledger = Ledger(first.data_dir)
            ledger.settle()
            ledger.check()


def test_the_release_before_replaces_a_result(tmp_path: Path) -> None:
    """It knows nothing of files, and they go nevertheless."""
    with Server(tmp_path / "var", PROCESSORS) as server:
        user = server.register()
        document_id = user.upload(CONTENT)["id"]
        made_of(user, document_id, files=2)
        with databases.engine(server.data_dir).begin() as conn:
            conn.exec_driver_sql("UPDATE document_results SET job_id = document_id")
            assert conn.scalar(select(func.count()).select_from(result_files)) == 0
        assert used(user) == (len(CONTENT), 1)
