"""The three calls of a direct upload, the same on every storage; what is sent goes to the URL of the answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.documents.models import documents
from tests.flows.test_object_storage import ENVIRONMENT
from tests.support.direct_uploads import announce, complete, initiate, put, sha256
from tests.support.factories import DOCX_TYPE, PDF_TYPE, bomb_docx, docx, macro_docx, pdf, polyglot
from tests.support.invariants import Ledger
from tests.support.seaweed import Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

PLACES = ["local", "s3"]


@dataclass
class Place:
    """A server on one kind of storage, and the names of the files there, past the server."""

    server: Server
    stored: Callable[[], set[str]]


@contextmanager
def server_on(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    settings = {"UPLOAD_IDLE_SECONDS": "1"}
    if kind == "local":
        files = folder / "var" / "files"
        with Server(folder / "var", settings) as server:
            yield Place(server, lambda: {path.name for path in files.rglob("*") if path.is_file()})
        return
    prefix = Prefix(request.getfixturevalue("seaweed"))
    with Server(folder / "var", settings | ENVIRONMENT | {"STORAGE_URL": prefix.url()}) as server:
        yield Place(server, lambda: {key.rpartition("/")[2] for key in prefix.objects()})


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Shared by tests that look at their own documents only."""
    with server_on(request.param, tmp_path_factory.mktemp(request.param), request) as place:
        yield place


@pytest.fixture(params=PLACES)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The test's own."""
    with server_on(request.param, tmp_path, request) as place:
        yield place


@pytest.fixture
def owner(place: Place) -> User:
    return place.server.register()


def names(user: User, document_id: str) -> list[str]:
    return [event["event"] for event in user.events(document_id)]


def assert_untouched(place: Place, user: User, upload: dict[str, Any], content: bytes) -> None:
    """The document still waits for its file, and takes it."""
    assert upload["document_id"] not in place.stored()
    assert user.document(upload["document_id"])["status"] == "INITIATED"
    assert put(upload, content) == 200
    assert complete(user, upload).status_code == 200


@pytest.mark.parametrize(("content", "kind"), [(pdf("x" * 700_000), PDF_TYPE), (docx(), DOCX_TYPE)])
@pytest.mark.parametrize("hashed", [False, True])
def test_three_calls(place: Place, owner: User, content: bytes, kind: str, *, hashed: bool) -> None:
    announced = {"content_type": kind, "metadata": {"folder": "f", "tags": ["t"]}}
    upload = announce(owner, content, **announced, **({"sha256": sha256(content)} if hashed else {}))
    document_id = upload["document_id"]
    assert upload["method"] == "PUT"
    assert upload["object_key"].endswith(f"documents/{document_id}")
    waiting = owner.document(document_id)
    assert (waiting["status"], waiting["size"], waiting["content_type"]) == ("INITIATED", len(content), kind)
    assert waiting["sha256"] == (sha256(content) if hashed else None)
    assert put(upload, content) == 200
    answer = complete(owner, upload)
    document = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    facts = {"status": "UPLOADED", "size": len(content), "sha256": sha256(content), "content_type": kind, "version": 2}
    assert document == owner.document(document_id) == waiting | facts | {"updated_at": document["updated_at"]}
    assert (document["folder"], document["tags"]) == ("f", ["t"])
    assert owner.http.get(f"/documents/{document_id}/content").content == content
    assert names(owner, document_id) == ["document.initiated", "document.status_changed", "document.uploaded"]
    assert owner.finished(owner.start(document_id, processor="text")["id"])["state"] == "SUCCEEDED"
    again = complete(owner, upload)
    assert (again.status_code, again.json()) == (200, owner.document(document_id))
    assert document_id in place.stored()


def test_until_it_is_complete(own: Place) -> None:
    owner = own.server.register()
    content = pdf()
    upload = announce(owner, content)
    path = f"/documents/{upload['document_id']}"
    assert [each["id"] for each in owner.http.get("/documents?status=INITIATED").json()["items"]] == [path[11:]]
    for sent in (False, True):
        if sent:
            assert put(upload, content) == 200
        for method, suffix, code in (
            ("POST", "/process", "upload-incomplete"),
            ("GET", "/content", "upload-incomplete"),
            ("GET", "/result", "result-not-ready"),
        ):
            answer = owner.http.request(method, path + suffix)
            assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert owner.http.patch(path, json={"folder": "f"}).json()["folder"] == "f"
    assert 'document_api_documents{status="INITIATED"} 1.0' in owner.http.get("/metrics").text
    assert complete(owner, upload).json()["version"] == 3


@pytest.mark.parametrize("sent", [False, True])
def test_calling_it_off(place: Place, owner: User, *, sent: bool) -> None:
    upload = announce(owner, pdf())
    assert not sent or put(upload, pdf()) == 200
    assert owner.http.delete(f"/documents/{upload['document_id']}").status_code == 204
    until(lambda: upload["document_id"] not in place.stored())
    assert complete(owner, upload).status_code == 404
    assert place.server.logs("http.failed") == []


def test_completed_too_early(place: Place, owner: User) -> None:
    upload = announce(owner, pdf())
    answer = complete(owner, upload)
    assert (answer.status_code, answer.json()["code"]) == (422, "upload-missing")
    assert_untouched(place, owner, upload, pdf())


WRONG = {
    "shorter": lambda content: (content[:-1], {}),
    "longer": lambda content: (content + b"\n", {}),
    "empty": lambda _: (b"", {}),
    "other type": lambda content: (content, {"Content_Type": "text/plain"}),
    "other document type": lambda content: (content, {"Content_Type": DOCX_TYPE}),
    "no type": lambda content: (content, {"Content_Type": None}),
    "no length": lambda content: (iter([content]), {}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_was_not_announced_is_refused(place: Place, owner: User, wrong: str) -> None:
    upload = announce(owner, pdf())
    body, headers = WRONG[wrong](pdf())
    assert put(upload, body, **headers) in {400, 403, 411, 422}
    assert_untouched(place, owner, upload, pdf())


def test_other_bytes_than_announced_are_refused(place: Place, owner: User) -> None:
    upload = announce(owner, pdf("right"), sha256=sha256(pdf("right")))
    assert put(upload, pdf("wrong")) in {400, 422}
    assert_untouched(place, owner, upload, pdf("right"))


def test_a_url_is_for_one_upload(owner: User) -> None:
    upload = announce(owner, pdf("right"))
    assert put(upload, pdf("right")) == 200
    assert put(upload, pdf("wrong")) == 412
    assert complete(owner, upload).status_code == 200
    assert put(upload, pdf("wrong")) == 412
    assert owner.http.get(f"/documents/{upload['document_id']}/content").content == pdf("right")


def test_bytes_of_no_stated_type_are_as_good(server: Server) -> None:
    """Generated clients send files so. A bucket's URL is signed for the announced type."""
    user = server.register()
    upload = announce(user, docx(), content_type=DOCX_TYPE)
    assert put(upload, docx(), Content_Type="application/octet-stream") == 200
    assert complete(user, upload).json()["content_type"] == DOCX_TYPE


def test_one_of_many_at_once_is_stored(owner: User) -> None:
    contents = [pdf(f"{number}" + "x" * 300_000) for number in range(6)]
    upload = announce(owner, contents[0])
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda content: put(upload, content), contents))
    # A store may answer a loser of the race 409 (ConditionalRequestConflict).
    assert answers.count(200) == 1
    assert set(answers) <= {200, 409, 412}
    assert complete(owner, upload).status_code == 200
    stored = owner.http.get(f"/documents/{upload['document_id']}/content").content
    assert stored == contents[answers.index(200)]


def test_another_documents_url_is_refused(place: Place, owner: User) -> None:
    first, second = announce(owner, pdf()), announce(owner, pdf())
    swapped = first["upload_url"].replace(first["document_id"], second["document_id"])
    assert put(second, pdf(), swapped) == 403
    assert_untouched(place, owner, second, pdf())


def test_a_changed_url_is_refused(place: Place, owner: User) -> None:
    upload = announce(owner, pdf())
    url = upload["upload_url"]
    flipped = url[:-1] + ("0" if url[-1] != "0" else "1")
    for changed in (flipped, url.replace("xpires=", "xpires=9"), url.partition("?")[0]):
        assert put(upload, pdf(), changed) in {403, 422}
    assert_untouched(place, owner, upload, pdf())


def test_an_expired_url_is_refused_and_what_came_in_time_is_not(own: Place) -> None:
    owner = own.server.register()
    own.server.kill()
    user = own.server.restarted(owner, UPLOAD_URL_TTL="3")
    content = pdf()
    late, timely = announce(user, content), announce(user, content)
    assert put(timely, content) == 200
    time.sleep(3.5)
    assert put(late, content) == 403
    assert own.stored() == {timely["document_id"]}
    assert complete(user, timely).status_code == 200


REJECTED = {
    "unsupported-document": lambda: (b"x" * 500, PDF_TYPE),
    "unsupported-document: cut off": lambda: (pdf()[:-6], PDF_TYPE),
    "polyglot-file": lambda: (polyglot(), PDF_TYPE),
    "macros-not-allowed": lambda: (macro_docx(), DOCX_TYPE),
    "unsafe-archive": lambda: (bomb_docx(), DOCX_TYPE),
    "content-type-mismatch": lambda: (docx(), PDF_TYPE),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_what_is_no_document_is_rejected_for_good(place: Place, owner: User, reason: str) -> None:
    content, kind = REJECTED[reason]()
    upload = announce(owner, content, content_type=kind)
    assert put(upload, content) == 200
    answers = [complete(owner, upload) for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "upload-rejected")
        assert answer.json()["error"]["code"] == reason.partition(":")[0]
    assert upload["document_id"] not in place.stored()
    document = owner.document(upload["document_id"])
    assert (document["status"], document["error"]) == ("INITIATED", answers[0].json()["error"])
    assert names(owner, upload["document_id"]) == ["document.initiated", "document.upload_rejected"]
    # Whatever is sent after that does not count: who removed the file may still be about to.
    put(upload, content)
    assert complete(owner, upload).status_code == 422
    assert upload["document_id"] not in place.stored()
    assert owner.process(upload["document_id"]).json()["code"] == "upload-incomplete"


def test_completed_by_many_at_once(owner: User) -> None:
    upload = announce(owner, pdf())
    assert put(upload, pdf()) == 200
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: complete(owner, upload), range(8)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert names(owner, upload["document_id"]).count("document.uploaded") == 1


def test_completed_or_swept_but_not_both(own: Place) -> None:
    """Completions and two sweepers a hair apart: whatever wins, a document has its bytes and none stay without one."""
    owner = own.server.register()
    own.server.kill()
    user = own.server.restarted(owner, UPLOAD_URL_TTL="3", ORPHAN_GRACE_SECONDS="1.5", LEASE_SECONDS="0.2")
    uploads, due, answers = [], [], []
    for number in range(12):
        uploads.append(announce(user, pdf()))
        due.append(time.monotonic() + 4.2 + number * 0.08)
        assert put(uploads[-1], pdf()) == 200
    for upload, at in zip(uploads, due, strict=True):
        time.sleep(max(0.0, at - time.monotonic()))
        answers.append(complete(user, upload).status_code)
    kept = {upload["document_id"] for upload, status in zip(uploads, answers, strict=True) if status == 200}
    assert set(answers) <= {200, 404, 422, 503}, answers
    until(lambda: own.stored() == kept)
    assert {each["id"] for each in user.http.get("/documents").json()["items"]} == kept
    for document_id in kept:
        assert user.http.get(f"/documents/{document_id}/content").content == pdf()


def test_nobody_else_can_complete_it(place: Place, owner: User) -> None:
    upload = announce(owner, pdf())
    assert put(upload, pdf()) == 200
    assert complete(place.server.register(), upload).status_code == 404
    path = f"/documents/{upload['document_id']}/complete-upload"
    assert place.server.client().post(path).status_code == 401
    assert complete(owner, upload).status_code == 200


def test_a_repeated_announcement_gets_the_first_answer(place: Place, owner: User) -> None:
    first, second = (initiate(owner, pdf(), key="k") for _ in range(2))
    assert second.headers["idempotent-replayed"] == "true"
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["location"] == first.headers["location"]
    other = initiate(owner, pdf(), key="k", filename="other.pdf")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len(owner.http.get("/documents").json()["items"]) == 1
    assert_untouched(place, owner, second.json(), pdf())


def test_uploads_never_completed_are_swept(own: Place, tmp_path: Path) -> None:
    owner = own.server.register()
    own.server.kill()
    quick = {"UPLOAD_URL_TTL": "3", "ORPHAN_GRACE_SECONDS": "2", "LEASE_SECONDS": "0.5"}
    user = own.server.restarted(owner, **quick)
    silent, sent, done = (announce(user, pdf()) for _ in range(3))
    assert [put(upload, pdf()) for upload in (sent, done)] == [200, 200]
    assert complete(user, done).status_code == 200
    until(lambda: own.stored() == {done["document_id"]})
    assert [complete(user, upload).status_code for upload in (silent, sent)] == [404, 404]
    assert [row.id.hex for row in Ledger(tmp_path / "var").rows(select(documents))] == [
        done["document_id"].replace("-", "")
    ]
    assert user.http.get(f"/documents/{done['document_id']}/content").content == pdf()
    assert len(own.server.logs("document.upload_expired")) == 2


def test_what_arrives_after_the_document_is_gone_is_swept(own: Place) -> None:
    owner = own.server.register()
    own.server.kill()
    user = own.server.restarted(owner, ORPHAN_GRACE_SECONDS="1")
    upload = announce(user, pdf())
    assert user.http.delete(f"/documents/{upload['document_id']}").status_code == 204
    assert put(upload, pdf()) in {200, 404}
    until(lambda: own.stored() == set())
