"""Splitting and merging over HTTP: what is made are documents, all of them or none."""

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, encrypted_pdf, pdf
from tests.support.inprocess import Process
from tests.support.invariants import Ledger
from tests.support.pages import encrypted, shared, texts
from tests.support.server import Server
from tests.support.user import User

S3 = {"split_params": {"file_map": [{"pages": [0, 1]}, {"pages": [2]}]}, "prefix": "split", "suffix": "2024"}


def done(user: User, document_id: str, processor: str = "split", **params: Any) -> dict[str, Any]:
    """The data of a result, once it is there."""
    job = user.finished(user.start(document_id, processor=processor, params=params)["id"])
    assert job["state"] == "SUCCEEDED", job
    data: dict[str, Any] = user.http.get(job["result_url"]).json()["data"]
    return data


def failed(user: User, document_id: str, processor: str = "split", **params: Any) -> dict[str, str]:
    """The error of a job that has failed at once, and made nothing."""
    before = user.http.get("/auth/me").json()["usage"]
    job = user.finished(user.start(document_id, processor=processor, params=params)["id"])
    assert (job["state"], job["attempt"], children(user, document_id)) == ("FAILED", 1, [])
    assert user.http.get("/auth/me").json()["usage"] == before
    error: dict[str, str] = job["error"]
    return error


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children?limit=100").json()["items"]
    return items


def content(user: User, document_id: str) -> bytes:
    return user.http.get(f"/documents/{document_id}/content").content


def test_the_one_call_that_uploads_and_splits(server: Server, user: User, tmp_path: Path) -> None:
    """As curl sends it, with fields of their own beside the file and its metadata."""
    (tmp_path / "report.pdf").write_bytes(pdf("a", 3))
    fields = {"metadata": {"folder": "in", "tags": ["a"]}, "process_params": S3}
    arguments = [f"{name}={json.dumps(value)}" for name, value in fields.items()]
    forms = [f"file=@{tmp_path / 'report.pdf'}", "process=split", *arguments]
    curl = ["curl", "-sS", "--fail", f"{server.url}/documents"]
    header = ["-H", f"Authorization: {user.http.headers['Authorization']}"]
    command = [*curl, *header, *(each for form in forms for each in ("-F", form))]
    uploaded = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert uploaded["job"]["params"]["file_map"][1]["pages"] == [2]
    job = user.finished(uploaded["job"]["id"])
    made = children(user, uploaded["id"])
    assert (job["state"], [each["filename"] for each in made]) == (
        "SUCCEEDED",
        ["split_report_1_2024.pdf", "split_report_2_2024.pdf"],
    )
    assert [texts(content(user, each["id"])) for each in made] == [["a 1", "a 2"], ["a 3"]]
    assert {(each["folder"], *each["tags"], each["parent_id"]) for each in made} == {("in", "a", uploaded["id"])}
    data = user.http.get(job["result_url"]).json()["data"]
    assert [{name: each[name] for name in ("id", "filename", "size", "sha256")} for each in made] == [
        {name: value for name, value in each.items() if name != "pages"} for each in data["children"]
    ]
    assert (data["page_count"], data["signature_dropped"]) == (3, False)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"process": "split", "metadata": '{"process": {"processor": "text"}}'}, "/process"),
        ({"process_params": "{}"}, "/process_params"),
        ({"process": "split", "process_params": "{"}, "/process_params"),
        ({"process": "split", "process_params": "[]"}, "/process_params"),
        ({"process": "", "process_params": "{}"}, "/process"),
        ({"process": "x" * 51}, "/process"),
        ({"process": "nobody"}, "/metadata/process/processor"),
        ({"process": "split", "process_params": '{"every": 0}'}, "/metadata/process/params/every"),
        ({"process": "split", "process_params": f'{{"every": {10**400}}}'}, "/metadata/process/params"),
    ],
    ids=str,
)
def test_fields_that_are_refused(user: User, fields: dict[str, str], pointer: str) -> None:
    answer = user.http.post("/documents", files={"file": ("a.pdf", pdf())}, data=fields)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert user.http.get("/documents?count=true").json()["total"] == 0


def test_small_parts_are_small_together(user: User) -> None:
    half = json.dumps({"description": "x" * 40_000})
    answer = user.http.post("/documents", files={"file": ("a.pdf", pdf())}, data={"metadata": half, "process": half})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload-too-large")
    twice = user.http.post("/documents", files=[("file", ("a.pdf", pdf())), ("process", b"a"), ("process", b"a")])
    assert (twice.status_code, twice.json()["code"]) == (422, "malformed-multipart")


def test_a_repeated_call_splits_once(user: User) -> None:
    file = {"file": ("a.pdf", pdf("once", 2))}
    first, again = (
        user.http.post("/documents", files=file, data={"process": "split"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert (again.status_code, again.content) == (201, first.content)
    user.finished(first.json()["job"]["id"])
    assert len(children(user, first.json()["id"])) == 2
    other = user.http.post("/documents", files=file, data={"process": "text"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


def test_children_have_the_text_of_their_parent_and_are_hardly_larger(user: User) -> None:
    whole = shared(200)
    document_id = user.upload(whole)["id"]
    pages = done(user, document_id, "text")["pages"]
    data = done(user, document_id, ranges="1-100,101-", then={"processor": "text"})
    made = children(user, document_id)
    assert [each["status"] for each in made if user.finished(each["job_id"])] != []
    read = [user.http.get(f"/documents/{each['id']}/result").json()["data"] for each in made]
    assert [page["text"] for each in read for page in each["pages"]] == [page["text"] for page in pages]
    assert "\f".join(each["text"] for each in read) == "\f".join(page["text"] for page in pages)
    assert sum(each["size"] for each in data["children"]) <= 1.3 * len(whole)


def test_the_original_is_deleted_when_its_children_are_there(user: User) -> None:
    document_id = user.upload(pdf("a", 2))["id"]
    job_id = user.start(document_id, processor="split", params={"delete_original": True})["id"]
    user.http.get(f"/jobs/{job_id}?wait=30")
    listed = user.http.get("/documents").json()["items"]
    assert sorted(each["filename"] for each in listed) == ["report_1.pdf", "report_2.pdf"]
    assert {each["parent_id"] for each in listed} == {document_id}


@pytest.mark.parametrize("levels", [2, 60, 200])
def test_what_is_made_is_not_split_on_and_on(user: User, levels: int) -> None:
    asked: dict[str, Any] = {"processor": "split"}
    for _ in range(levels):
        asked = {"processor": "split", "params": {"split_params": {"then": asked}}}
    refused = user.process(user.upload(pdf())["id"], **asked)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")


def test_params_that_many_jobs_would_have_are_short(user: User) -> None:
    long = {"file_map": [{"pages": [0] * 2500}]}
    document_id = user.upload(pdf())["id"]
    refused = user.process(document_id, processor="split", params={"then": {"processor": "split", "params": long}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/params/then/params")
    batch = {"document_ids": [document_id], "processor": "split", "params": long}
    refused = user.http.post("/documents/process-batch", json=batch)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/params")
    assert user.process(document_id, processor="split", params=long).status_code == 202


@pytest.mark.parametrize("name", ["..", " ", "\u200b", "\u202e."], ids=ascii)
def test_a_child_has_a_name_that_can_be_shown(user: User, name: str) -> None:
    document_id = user.upload(pdf())["id"]
    assert failed(user, document_id, file_map=[{"pages": [0], "name": name}])["code"] == "invalid-filename"
    assert failed(user, document_id, "merge", filename=name)["code"] == "invalid-filename"


def test_metadata_of_each_child(user: User) -> None:
    document_id = user.upload(pdf("a", 2), metadata={"folder": "in", "description": "d", "tags": ["a"]})["id"]
    named = {"pages": [1], "name": "second", "metadata": {"folder": "out", "tags": ["b"]}}
    done(user, document_id, file_map=[{"pages": [0]}, named])
    first, second = children(user, document_id)
    assert (first["filename"], first["folder"], first["description"], first["tags"]) == (
        "report_1.pdf",
        "in",
        "d",
        ["a"],
    )
    assert (second["filename"], second["folder"], second["tags"]) == ("second.pdf", "out", ["b"])
    assert second["description"] == "d"
    bad = {"pages": [0], "metadata": {"tags": ["a\nb"]}}
    assert failed(user, user.upload(pdf("a", 2))["id"], file_map=[{"pages": [1]}, bad])["code"] == "invalid-metadata"


def test_what_cannot_be_split(user: User) -> None:
    document_id = user.upload(pdf("a", 2))["id"]
    assert failed(user, document_id, file_map=[{"pages": [0, 2]}]) == {
        "code": "page-out-of-range",
        "detail": "There is no page 2: the document has 2, which `file_map` counts from 0.",
    }
    letter = user.upload(docx(), "letter.docx", content_type=DOCX_TYPE)["id"]
    refused = user.process(letter, processor="split")
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported-content-type")
    both = user.process(document_id, processor="split", params={"every": 1, "ranges": "1"})
    assert (both.status_code, both.json()["errors"][0]["pointer"]) == (422, "/params")


POISON = {
    "password": (encrypted_pdf("secret"), "password-protected"),
    "no pages": (pdf().replace(b"/Count 1 /Kids [4 0 R]", b"/Count 0 /Kids [     ]"), "malformed-document"),
    "pages without end": (pdf().replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"), "malformed-document"),
}


@pytest.mark.parametrize(("poison", "code"), POISON.values(), ids=POISON)
def test_poison_fails_at_once_and_the_server_lives(user: User, poison: bytes, code: str) -> None:
    document_id = user.upload(poison)["id"]
    assert failed(user, document_id)["code"] == code
    first = user.upload(encrypted(pdf("a")))["id"]
    assert failed(user, first, "merge", **{"with": [document_id]})["code"] == code
    assert len(done(user, first)["children"]) == 1


@pytest.mark.long
def test_a_quota_that_is_reached_publishes_nothing(tmp_path: Path) -> None:
    whole = shared(20)
    with Server(tmp_path / "var", {"QUOTA_BYTES": str(len(whole) * 3 // 2)}) as server:
        user = server.register()
        document_id = user.upload(whole)["id"]
        assert failed(user, document_id)["code"] == "storage-quota-exceeded"
        assert user.http.get("/documents?count=true").json()["total"] == 1
        ledger = Ledger(server.data_dir)
        ledger.settle()
        ledger.check()
    with Server(tmp_path / "few", {"QUOTA_DOCUMENTS": "10"}) as server:
        user = server.register()
        assert failed(user, user.upload(whole)["id"])["code"] == "document-quota-exceeded"


def test_a_quota_is_looked_at_before_much_is_stored(tmp_path: Path) -> None:
    """The server would be killed after the twentieth file."""
    whole = shared(20)
    limits = {"QUOTA_BYTES": str(len(whole) * 5), "MAX_UPLOAD_BYTES": str(len(whole) * 3 // 2)}
    with Server(tmp_path / "var", limits | {"FAULT": "output.after_store:20"}) as server:
        user = server.register()
        document_id = user.upload(whole)["id"]
        assert failed(user, document_id, file_map=[{"pages": [*range(20)]}] * 40)["code"] == "storage-quota-exceeded"


def test_a_merge_is_a_document_of_all_pages(user: User, stranger: User) -> None:
    ids = [user.upload(pdf(text, 2), f"{text}.pdf", metadata={"folder": text})["id"] for text in "abc"]
    data = done(user, ids[0], "merge", **{"with": [ids[2], ids[1]]})
    (made,) = children(user, ids[0])
    assert (made["filename"], made["folder"], made["id"]) == ("a_merged.pdf", "a", data["children"][0]["id"])
    assert texts(content(user, made["id"])) == ["a 1", "a 2", "c 1", "c 2", "b 1", "b 2"]
    assert (data["page_count"], data["documents"]) == (6, 3)
    theirs = user.process(ids[1], processor="merge", params={"with": [stranger.upload()["id"]]})
    assert (theirs.status_code, theirs.json()["errors"][0]["pointer"]) == (422, "/params/with/0")


def test_a_merge_where_the_data_folder_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is by default."""
    monkeypatch.chdir(tmp_path)
    process = Process(Path("var"))
    _, token = process.enter("ada@example.com")
    files = [{"file": ("a.pdf", pdf(text), PDF_TYPE)} for text in ("one", "two")]
    first, second = (process.http("POST", "/documents", token=token, files=each).json()["id"] for each in files)
    wanted = {"processor": "merge", "params": {"with": [second]}}
    job = process.http("POST", f"/documents/{first}/process", token=token, json=wanted).json()["job"]
    process.work(UUID(job["id"]))
    answer = process.http("GET", f"/documents/{first}/result", token=token).json()
    process.kill()
    assert answer["data"]["page_count"] == 2
