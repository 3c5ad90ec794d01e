"""Documents after their upload: list, read, edit, fetch, delete, and who may."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, pdf
from tests.support.user import User

SORTS = ["created_at", "-created_at", "filename", "-filename", "size", "-size"]
CONTENT = pdf("A file to fetch")
SIZE = len(CONTENT)
ROUTES = [
    *(f"{method} /documents/{{document}}" for method in ("GET", "PATCH", "DELETE")),
    *(f"GET /documents/{{document}}/{what}" for what in ("content", "result", "timeline")),
    *("POST /documents/{document}/process", "GET /jobs/{job}", "POST /jobs/{job}/cancel"),
]


@pytest.fixture
def document(user):
    return user.upload(CONTENT, "fetch; mé.pdf", metadata={"description": "d", "folder": "f", "tags": ["a", "b"]})


@pytest.fixture
def path(document):
    return f"/documents/{document['id']}"


@pytest.fixture
def processing(user):
    """A document with a job that runs until the test is over."""
    job = user.start(user.upload()["id"], params={"seconds": 60})
    yield user.document(job["document_id"])
    user.http.post(f"/jobs/{job['id']}/cancel")


@pytest.fixture(scope="module")
def library(server):
    """A user with a document in every state."""
    user = server.register()
    user.upload(pdf("1"), "b.pdf", metadata={"folder": "in", "tags": ["x", "y"], "description": "100% _wool_"})
    user.upload(pdf("two"), "a.pdf", metadata={"folder": "in/deep", "tags": ["x"]})
    user.upload(docx(), "été.docx", metadata={"folder": "in", "tags": ["X", "y z&ü"]})
    for name, fail in (("Done.pdf", None), ("bad.pdf", "permanent")):
        user.finished(user.start(user.upload(pdf(name), name)["id"], params={"seconds": 0, "fail": fail})["id"])
    busy = user.start(user.upload(pdf("busy"), "busy.pdf")["id"], params={"seconds": 60})
    yield user
    user.http.post(f"/jobs/{busy['id']}/cancel")


def call(http: httpx2.Client, route: str, document: object, job: object) -> httpx2.Response:
    method, path = route.format(document=document, job=job).split()
    return http.request(method, path, json={})


def items(user: User, **query: Any) -> list[dict[str, Any]]:
    return user.http.get("/documents", params=query).raise_for_status().json()["items"]


def walk(user: User, path: str, meanwhile: Callable[[], object] = int, **query: Any) -> list[dict[str, Any]]:
    """Every item of every page; between two pages something happens."""
    found, cursor = [], {}
    while cursor != {"cursor": None}:
        page = user.http.get(path, params=query | cursor).raise_for_status().json()
        assert len(page["items"]) <= query["limit"]
        found += page["items"]
        cursor = {"cursor": page["next_cursor"]}
        meanwhile()
    return found


def placed(field: str) -> Callable[[dict[str, Any]], tuple[Any, str]]:
    """Where a document belongs in a list sorted by this field."""
    return lambda each: (datetime.fromisoformat(each[field]) if field == "created_at" else each[field], each["id"])


def assert_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code)


FILTERS = {
    "": "Done a b bad busy été",
    "status=UPLOADED": "a b été",
    "status=PROCESSING": "busy",
    "status=COMPLETED": "Done",
    "status=FAILED": "bad",
    f"content_type={DOCX_TYPE}": "été",
    f"content_type={PDF_TYPE}": "Done a b bad busy",
    "tag=x": "a b",
    "tag=y z%26ü": "été",
    "folder=in": "b été",
    "q=B": "b bad busy",
    "q=_": "b",
    "q=WOOL": "b",
    "q=ÉTÉ": "été",
    "status=UPLOADED&folder=in&tag=x&q=wool": "b",
}


@pytest.mark.parametrize(("query", "expected"), FILTERS.items(), ids=FILTERS)
def test_filters(library, query, expected):
    found = library.http.get(f"/documents?{query}").json()["items"]
    assert sorted(each["filename"].partition(".")[0] for each in found) == expected.split()
    assert found == sorted(found, key=placed("created_at"), reverse=True)


def test_filters_by_hash_and_time(library):
    *newer, third, _, oldest = items(library)
    assert items(library, sha256=third["sha256"]) == [third]
    assert items(library, created_after=third["created_at"]) == newer
    assert items(library, created_before=items(library)[-2]["created_at"].replace("Z", "+00:00")) == [oldest]


@pytest.mark.parametrize("sort", SORTS)
def test_pages_show_each_document_once_while_others_come(user, sort):
    names = ["m.pdf", "m.pdf", "é.pdf", "Z.pdf", *["履" * 251 + ".pdf"] * 3]
    contents = [pdf("same"), pdf("same"), pdf("b"), pdf("same"), pdf("longer"), pdf("same"), pdf("same")]
    with ThreadPoolExecutor(7) as at_once:
        before = list(at_once.map(user.upload, contents, names))
    shown = walk(user, "/documents", lambda: user.upload(pdf("same"), "m.pdf"), sort=sort, limit=2)
    assert shown == sorted(shown, key=placed(sort.removeprefix("-")), reverse=sort.startswith("-"))
    ids = [each["id"] for each in shown]
    assert [ids.count(each["id"]) for each in before] == [1] * 7
    assert len(set(ids)) == len(ids)


def test_pages_of_a_filtered_list(library):
    assert walk(library, "/documents", tag="x", sort="size", limit=1) == items(library, tag="x", sort="size")
    assert len(items(library, limit=100)) == 6


BAD = ["limit=0", "limit=101", "limit=x", "sort=--size", "status=uploaded", "tag=", "folder=", "q=", "sha256=AB"]


@pytest.mark.parametrize("query", [*BAD, "content_type=a", "created_after=x", "created_before=2026-01-01T00:00:00"])
def test_bad_query(user, query):
    answer = user.http.get(f"/documents?{query}")
    assert_problem(answer, 422, "validation-failed")
    assert [place["pointer"] for place in answer.json()["errors"]] == [f"/query/{query.partition('=')[0]}"]


@pytest.mark.parametrize("sort", SORTS)
def test_a_cursor_is_good_for_its_own_list_only(library, sort):
    cursor = library.http.get("/documents", params={"sort": sort, "limit": 1}).json()["next_cursor"]
    lists = [f"/documents?sort={other}" for other in SORTS if other != sort]
    for path in [*lists, "/jobs?", f"/documents/{items(library)[0]['id']}/timeline?"]:
        assert_problem(library.http.get(f"{path}&cursor={cursor}"), 422, "invalid-cursor")
    assert len(items(library, sort=sort, cursor=cursor)) == 5


@pytest.mark.parametrize("what", ["", "/content"], ids=["document", "content"])
def test_revalidate(user, path, what):
    answer = user.http.get(path + what)
    etag = answer.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        unchanged = user.http.get(path + what, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert user.http.get(path + what, headers={"If-None-Match": '"other"'}).content == answer.content


def test_while_processing(user, processing):
    path = f"/documents/{processing['id']}"
    read, refused = user.http.get(path), user.http.delete(path)
    assert read.json() == processing
    assert_problem(refused, 409, "document-processing")
    assert [int(answer.headers["retry-after"]) > 0 for answer in (read, refused)] == [True, True]
    user.http.post(f"/jobs/{processing['job_id']}/cancel")
    ended = user.http.get(path, headers={"If-None-Match": read.headers["etag"]})
    assert (ended.status_code, "retry-after" in ended.headers) == (200, False)


@pytest.mark.parametrize("if_match", [None, "{}", "*", '"99", {}', "W/{}", '"99"', "nonsense", ""])
def test_edit_if_it_is_still_that_version(user, document, path, if_match):
    etag = user.http.get(path).headers["etag"]
    headers = {} if if_match is None else {"If-Match": if_match.format(etag)}
    answer = user.http.patch(path, json={"description": "new", "tags": ["b", "c"]}, headers=headers)
    if if_match in {None, "{}", "*", '"99", {}'}:
        changed = {"description": "new", "tags": ["b", "c"], "version": 2, "updated_at": answer.json()["updated_at"]}
        assert answer.json() == user.document(document["id"]) == document | changed
        assert answer.headers["etag"] == user.http.get(path).headers["etag"] != etag
        assert [len(items(user, tag=tag)) for tag in "abc"] == [0, 1, 1]
    else:
        assert_problem(answer, 412, "precondition-failed")
        assert user.document(document["id"]) == document


def test_of_edits_to_one_version_one_wins(user, path):
    headers = {"If-Match": user.http.get(path).headers["etag"]}
    with ThreadPoolExecutor(8) as at_once:
        answers = at_once.map(lambda name: user.http.patch(path, json={"folder": name}, headers=headers), "12345678")
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


@pytest.mark.parametrize(("field", "empty"), [("description", None), ("folder", None), ("tags", [])])
def test_null_clears_a_field_and_leaves_the_others(user, document, path, field, empty):
    answer = user.http.patch(path, json={field: None}).raise_for_status()
    kept = {name: document[name] for name in ("description", "folder", "tags", "filename", "status")}
    assert answer.json() | kept | {field: empty} == answer.json()


def test_edit_refuses_what_is_not_metadata(user, path):
    answer = user.http.patch(path, json={"filename": "x", "status": "FAILED", "owner_id": "x"})
    assert_problem(answer, 422, "validation-failed")
    assert [place["pointer"] for place in answer.json()["errors"]] == ["/filename", "/status", "/owner_id"]


def test_content_and_its_headers(user, document, path):
    answer = user.http.get(f"{path}/content")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    expected = {
        "content-type": "application/pdf",
        "content-length": str(SIZE),
        "content-disposition": "attachment; filename=\"fetch; m_.pdf\"; filename*=UTF-8''fetch%3B%20m%C3%A9.pdf",
        "x-content-type-options": "nosniff",
        "etag": f'"{document["sha256"]}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    assert dict(answer.headers) | expected == dict(answer.headers)


RANGES = [("0-9", 0, 10), ("10-", 10, SIZE), ("-5", SIZE - 5, SIZE), (f"9-{SIZE + 9}", 9, SIZE)]
RANGES += [("0-", 0, SIZE), (f"-{SIZE + 9}", 0, SIZE)]  # satisfiable like any other (RFC 9110 §14.2)
RANGES += [(f"9-{2**63 - 1}", 9, SIZE), (f"-{2**64}", 0, SIZE)]  # for "to the end", as clients write it


@pytest.mark.parametrize(("asked", "start", "stop"), RANGES)
def test_range(user, document, path, asked, start, stop):
    for condition in ({}, {"If-Range": f'"{document["sha256"]}"'}):
        answer = user.http.get(f"{path}/content", headers={"Range": f"bytes={asked}", **condition})
        assert answer.content == CONTENT[start:stop]
        assert (answer.status_code, answer.headers.get("content-range")) == (206, f"bytes {start}-{stop - 1}/{SIZE}")


def test_names_of_range_units_have_no_case(user, path):
    assert user.http.get(f"{path}/content", headers={"Range": "Bytes=0-9"}).content == CONTENT[:10]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"])
def test_range_beyond_the_end(user, path, asked):
    answer = user.http.get(f"{path}/content", headers={"Range": asked})
    assert_problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes", ""])
def test_range_ignored(user, path, asked):
    answer = user.http.get(f"{path}/content", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("if_range", ['W/"{}"', '"other"', "Sat, 21 Nov 2026 23:57:36 GMT"])
def test_range_of_other_content_is_ignored(user, document, path, if_range):
    headers = {"Range": "bytes=0-9", "If-Range": if_range.format(document["sha256"])}
    answer = user.http.get(f"{path}/content", headers=headers)
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_delete(user, document, path):
    def stored() -> bool:
        return any((user.server.data_dir / "files" / "documents").rglob(document["id"]))

    job = user.finished(user.start(document["id"])["id"])
    assert stored()
    assert user.http.delete(f"{path}?permanent=true").status_code == 204
    for route in ROUTES:
        assert_problem(call(user.http, route, document["id"], job["id"]), 404, "not-found")
    assert items(user) == user.http.get("/jobs").json()["items"] == []
    deadline = time.monotonic() + 10
    while stored():
        assert time.monotonic() < deadline


def test_pages_of_the_timeline(user, document, path):
    for number in range(4):
        user.http.patch(path, json={"folder": "g"}, headers={"X-Request-ID": f"edit-{number}"})
    told = walk(user, f"{path}/timeline", limit=2)
    assert told == user.events(document["id"])
    assert [each["event"] for each in told] == ["document.uploaded"] + ["document.edited"] * 4
    assert [each["request_id"] for each in told[1:]] == [f"edit-{number}" for number in range(4)]
    assert {each["actor"] for each in told} == {f"user:{document['owner_id']}"}
    for limit in (0, 101):
        assert_problem(user.http.get(f"{path}/timeline?limit={limit}"), 422, "validation-failed")


@pytest.mark.parametrize("route", ROUTES)
def test_of_anothers_a_stranger_sees_as_much_as_of_nothing(user, stranger, document, processing, route):
    nothing = call(stranger.http, route, uuid4(), uuid4())
    for each in (document, processing):
        theirs = call(stranger.http, route, each["id"], processing["job_id"])
        assert_problem(theirs, 404, "not-found")
        assert theirs.json() | {"request_id": "", "instance": ""} == nothing.json() | {"request_id": "", "instance": ""}
        # It closes the connection if it comes before the body, which is not needed.
        assert theirs.headers.keys() - {"connection"} == nothing.headers.keys() - {"connection"}
        assert call(user.server.client(), route, each["id"], processing["job_id"]).status_code == 401
        assert user.document(each["id"]) == each
    assert items(stranger) == stranger.http.get("/jobs").json()["items"] == []


def test_a_merge_patch_may_be_called_one(user):
    path = f"/documents/{user.upload()['id']}"
    headers = {"Content-Type": "application/merge-patch+json"}
    assert user.http.patch(path, content=b'{"folder": "f"}', headers=headers).json()["folder"] == "f"
    assert user.http.post(f"{path}/process", content=b"{}", headers=headers).status_code == 415
