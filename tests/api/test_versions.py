"""The files that a document has and had: replaced, listed, read, restored, removed."""

import hashlib
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.support import direct_uploads
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, pdf
from tests.support.user import User

QUICK = {"seconds": 0}


def replace(user: User, document: dict[str, Any], content: bytes, name: str = "", **headers: str) -> httpx2.Response:
    """PUT /documents/{id}/content, the file by itself, of the version that the document is known at."""
    sent = {"If-Match": f'"{document["version"]}"', "Content-Type": "application/octet-stream"}
    sent |= {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
    sent |= {header.replace("_", "-"): value for header, value in headers.items()}
    return user.http.put(f"/documents/{document['id']}/content", content=content, headers=sent)


def replaced(user: User, document: dict[str, Any], content: bytes, name: str = "") -> dict[str, Any]:
    answer = replace(user, document, content, name)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def content(user: User, document: dict[str, Any], **query: Any) -> bytes:
    answer = user.http.get(f"/documents/{document['id']}/content", params=query)
    assert answer.status_code == 200, answer.text
    return answer.content


def files(user: User, document: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = user.http.get(f"/documents/{document['id']}/files").json()["items"]
    return items


def processed(user: User, document: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    return user.finished(user.start(document["id"], **wanted)["id"])


def used(user: User) -> int:
    """Bytes that count as the account's."""
    total: int = user.http.get("/auth/me").json()["usage"]["bytes"]
    return total


def test_the_file_of_a_document_is_replaced(user: User) -> None:
    first, second = pdf("one"), pdf("two")
    document = user.upload(first, "report.pdf")
    assert document["file_number"] == 1
    processed(user, document)
    document = user.document(document["id"])
    answer = replace(user, document, second, "signed.pdf")
    assert answer.status_code == 200, answer.text
    now = answer.json()
    assert answer.headers["etag"] == f'"{now["version"]}"' == f'"{document["version"] + 1}"'
    changed = {"filename": "signed.pdf", "size": len(second), "sha256": hashlib.sha256(second).hexdigest()}
    changed |= {"status": "UPLOADED", "file_number": 2, "job_id": None, "version": document["version"] + 1}
    assert now == document | changed | {"updated_at": now["updated_at"]} == user.document(document["id"])
    assert content(user, document) == second == content(user, document, file=2)
    assert content(user, document, file=1) == first
    assert used(user) == len(first) + len(second)
    assert user.http.get(f"/documents/{document['id']}/result").json()["code"] == "result-not-ready"
    told = [event for event in user.events(document["id"]) if event["event"] == "document.file_replaced"]
    assert [event["data"] for event in told] == [
        {"number": 2, "size": len(second), "sha256": now["sha256"], "content_type": PDF_TYPE}
    ]


def test_a_file_may_come_in_a_form_or_by_itself(user: User) -> None:
    document = user.upload(pdf("one"), "report.pdf")
    path, version = f"/documents/{document['id']}/content", {"If-Match": '"1"'}
    form = user.http.put(path, files={"file": ("b.pdf", pdf("two"), "image/png")}, headers=version)
    assert (form.status_code, form.json()["filename"]) == (200, "b.pdf")
    named = replace(user, form.json(), pdf("three"), "c.pdf", Content_Type=PDF_TYPE).json()
    assert named["filename"] == "c.pdf"
    both = "inline; filename=\"plain.pdf\"; filename*=UTF-8''na%C3%AFve.pdf"
    both_named = replace(user, named, pdf("four"), Content_Disposition=both).json()
    assert both_named["filename"] == "naïve.pdf", "RFC 6266"
    own = replace(user, both_named, pdf("five")).json()
    assert own["filename"] == "naïve.pdf"
    other = replace(user, own, docx(), Content_Type=PDF_TYPE).json()
    assert (other["filename"], other["content_type"]) == ("naïve.docx", DOCX_TYPE), "as its content is"
    assert content(user, other) == docx()
    numbers = [(each["number"], each["filename"]) for each in files(user, document)]
    names = ["report.pdf", "b.pdf", "c.pdf", "naïve.pdf", "naïve.pdf", "naïve.docx"]
    assert numbers == [*zip(range(6, 0, -1), names[::-1], strict=True)]
    previous = user.http.get(path, params={"file": 2})
    assert 'filename="b.pdf"' in previous.headers["content-disposition"]
    assert previous.headers["etag"] == f'"{hashlib.sha256(pdf("two")).hexdigest()}"'
    assert user.http.get(path, params={"file": 2}, headers={"Range": "bytes=0-3"}).content == b"%PDF"


def sent_directly(user: User, data: bytes, name: str = "direct.pdf") -> dict[str, Any]:
    upload = direct_uploads.announce(user, data, filename=name)
    assert direct_uploads.put(upload, data) == 200
    document: dict[str, Any] = direct_uploads.complete(user, upload).json()
    return document


def adopt(user: User, document: dict[str, Any], other: str, **headers: str) -> httpx2.Response:
    named = {"If-Match": f'"{document["version"]}"', **headers}
    return user.http.put(f"/documents/{document['id']}/content", json={"document_id": other}, headers=named)


def test_a_file_may_have_come_by_a_direct_upload(user: User) -> None:
    document, before = user.upload(pdf("one")), used(user)
    other = sent_directly(user, pdf("two"), "signed.pdf")
    answer = adopt(user, document, other["id"])
    assert answer.status_code == 200, answer.text
    now = answer.json()
    assert (now["id"], now["filename"], now["sha256"]) == (document["id"], "signed.pdf", other["sha256"])
    assert (now["file_number"], now["version"], now["status"]) == (2, 2, "UPLOADED")
    assert content(user, now) == pdf("two")
    assert content(user, now, file=1) == pdf("one")
    assert user.http.get(f"/documents/{other['id']}").status_code == 404, "its file is another one's now"
    assert used(user) == before + other["size"]
    assert user.http.get("/auth/me").json()["usage"]["documents"] == 1
    assert adopt(user, now, other["id"]).status_code == 422


def test_the_same_file_by_a_direct_upload_changes_nothing(user: User) -> None:
    document, before = user.upload(pdf("one")), used(user)
    other = sent_directly(user, pdf("one"))
    answer = adopt(user, document, other["id"])
    assert (answer.status_code, answer.json()) == (200, document)
    assert user.http.get(f"/documents/{other['id']}").status_code == 404
    assert used(user) == before
    assert content(user, document) == pdf("one")


def test_only_a_direct_upload_that_nothing_was_done_with_is_taken(user: User, stranger: User) -> None:
    document = user.upload()
    announced = direct_uploads.announce(user, pdf("two"))["document_id"]
    processed_one, replaced_one, trashed = (sent_directly(user, pdf(text)) for text in ("three", "four", "eight"))
    processed(user, processed_one)
    replaced(user, replaced_one, pdf("five"))
    job = user.start((cancelled := sent_directly(user, pdf("six")))["id"], params={"seconds": 60})
    user.http.post(f"/jobs/{job['id']}/cancel")
    user.http.delete(f"/documents/{trashed['id']}")
    refused = {
        document["id"]: "It is the document itself.",
        user.upload()["id"]: "It did not come by a direct upload.",
        processed_one["id"]: "It was processed already.",
        cancelled["id"]: "It was processed already.",
        replaced_one["id"]: "Its own file was replaced already.",
        trashed["id"]: "There is no such document.",
        sent_directly(stranger, pdf("seven"))["id"]: "There is no such document.",
        str(UUID(int=1)): "There is no such document.",
    }
    for other, reason in refused.items():
        answer = adopt(user, document, other)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
        assert answer.json()["detail"] == reason
        assert answer.json()["errors"] == [{"detail": reason, "pointer": "/document_id"}]
    answer = adopt(user, document, announced)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload-incomplete")
    for body in ("{", "[]", '{"document_id": 1}', '{"document_id": null, "x": 1}', ""):
        sent = {"If-Match": '"1"', "Content-Type": "application/json"}
        answer = user.http.put(f"/documents/{document['id']}/content", content=body, headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed"), body
    assert user.document(document["id"]) == document


def test_the_same_file_changes_nothing(user: User) -> None:
    document = user.upload(pdf("one"))
    processed(user, document)
    document = user.document(document["id"])
    for _ in range(2):
        answer = replace(user, document, pdf("one"), "other.pdf")
        assert (answer.status_code, answer.json()) == (200, document)
        assert answer.headers["etag"] == f'"{document["version"]}"'
    assert len(files(user, document)) == 1
    assert used(user) == document["size"]


def test_a_version_must_be_named_and_must_be_the_present_one(user: User, stranger: User) -> None:
    document = user.upload(pdf("one"))
    path, kind = f"/documents/{document['id']}/content", {"Content-Type": PDF_TYPE}
    answer = user.http.put(path, content=pdf("two"), headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (428, "precondition-required")
    for version in ('"2"', 'W/"1"', '"x"', ""):
        answer = user.http.put(path, content=pdf("two"), headers=kind | {"If-Match": version})
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition-failed"), version
    unquoted = user.http.put(path, content=pdf("two"), headers=kind | {"If-Match": "1"})
    assert 'in quotes ("3")' in unquoted.json()["detail"], "what looks right says how it is written"
    assert adopt(user, document | {"version": 7}, sent_directly(user, pdf("two"))["id"]).status_code == 412
    assert replace(stranger, document, pdf("two")).status_code == 404
    assert user.document(document["id"]) == document
    assert replace(user, document, pdf("two"), If_Match='"9", "1"').status_code == 200
    assert replace(user, document, pdf("three"), If_Match="*").status_code == 200


def test_what_is_no_document_is_refused_and_leaves_nothing_behind(user: User) -> None:
    document = user.upload(pdf("one"))
    path, version = f"/documents/{document['id']}/content", {"If-Match": '"1"'}
    pdf_file = ("a.pdf", pdf("two"), PDF_TYPE)
    refused = [
        (415, "unsupported-document", {"content": b"no document", "headers": {"Content-Type": PDF_TYPE}}),
        (415, "unsupported-document", {"content": b"", "headers": {"Content-Type": PDF_TYPE}}),
        (415, "unsupported-document", {"files": {"file": ("a.pdf", b"x" * 2000, PDF_TYPE)}}),
        (415, "unsupported-media-type", {"content": pdf("two"), "headers": {"Content-Type": "text/plain"}}),
        (415, "unsupported-media-type", {"content": pdf("two")}),
        (422, "malformed-multipart", {"files": {"file": pdf_file}, "data": {"metadata": "{}"}}),
        (422, "malformed-multipart", {"files": {"other": pdf_file}}),
    ]
    for status, code, body in refused:
        headers = version | body.pop("headers", {})  # type: ignore[attr-defined]
        answer = user.http.put(path, headers=headers, **body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert user.document(document["id"]) == document
    assert used(user) == document["size"]


def test_a_file_is_not_replaced_under_a_job(user: User) -> None:
    document_id, job_id = user.begin(seconds=60)
    document = user.document(document_id)
    answer = replace(user, document, pdf("two"))
    assert (answer.status_code, answer.json()["code"]) == (409, "document-processing")
    assert user.http.post(f"/documents/{document_id}/files/1/restore").json()["code"] == "document-processing"
    user.http.post(f"/jobs/{job_id}/cancel")
    assert replace(user, user.document(document_id), pdf("two")).status_code == 200


def test_a_file_that_never_came_is_not_replaced(user: User) -> None:
    upload = direct_uploads.announce(user, pdf("one"))
    document = user.document(upload["document_id"])
    answer = replace(user, document, pdf("two"))
    assert (answer.status_code, answer.json()["code"]) == (409, "upload-incomplete")
    [announced] = files(user, document)
    assert (announced["number"], announced["sha256"], announced["current"]) == (1, None, True)
    answer = user.http.get(f"/documents/{document['id']}/content", params={"file": 1})
    assert answer.json()["code"] == "upload-incomplete"


@pytest.mark.parametrize("way", ["by itself", "directly"])
def test_a_replacement_under_a_key_is_done_once(user: User, way: str) -> None:
    document = user.upload(pdf("one"))
    other = sent_directly(user, pdf("two"))["id"] if way == "directly" else ""

    def put(version: str = '"1"', text: str = "two") -> httpx2.Response:
        if way == "directly":
            return adopt(user, document, other if text == "two" else document["id"], **{"Idempotency-Key": "k"})
        return replace(user, document, pdf(text), If_Match=version, Idempotency_Key="k")

    first, again = put(), put()
    assert (first.status_code, first.json()["file_number"]) == (200, 2)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert (put(text="three").status_code, put(text="three").json()["code"]) == (422, "idempotency-key-reused")
    assert len(files(user, document)) == 2
    assert content(user, document) == pdf("two")


def test_jobs_and_results_say_which_file_they_read(user: User) -> None:
    document = user.upload(pdf("one"))
    first = processed(user, document, processor="text")
    assert first["file_number"] == 1
    processed(user, document)
    path = f"/documents/{document['id']}"
    before = {name: user.http.get(f"{path}/{name}").json() for name in ("result", "results", "results/text")}
    assert (before["result"]["file_number"], before["results/text"]["file_number"]) == (1, 1)
    document = replaced(user, user.document(document["id"]), pdf("two"))
    assert user.http.get(f"{path}/results").json() == {"items": []}
    assert user.http.get(f"{path}/results/text").status_code == 404
    second = processed(user, document, processor="text")
    assert second["file_number"] == 2
    assert user.http.get(f"{path}/result").json() == user.http.get(f"{path}/result?file=2").json()
    assert user.http.get(f"{path}/results/text").json()["file_number"] == 2
    for name in ("result", "results/text"):
        assert user.http.get(f"{path}/{name}?file=1").json() == before[name]
    listed = user.http.get(f"{path}/results?file=1").json()["items"]
    assert [each.pop("url") for each in listed] == [f"{path}/results/{name}?file=1" for name in ("simulated", "text")]
    assert listed == [{name: each[name] for name in each if name != "url"} for each in before["results"]["items"]]
    assert "one 1" in user.http.get(f"{path}/results/text?file=1", headers={"Accept": "text/plain"}).text
    third = replaced(user, user.document(document["id"]), pdf("three"))
    answer = user.http.get(f"{path}/result?file=3")
    assert (answer.status_code, answer.json()["code"], third["file_number"]) == (409, "result-not-ready", 3)
    assert user.http.get(f"{path}/result?file=2").json()["job_id"] == second["id"]
    replaced(user, third, pdf("four"))
    assert user.http.get(f"{path}/result?file=3").json()["code"] == "result-not-ready"
    assert user.http.get(f"{path}/results?file=3").json() == {"items": []}
    for name in ("content", "result", "results", "results/text", "results/text/files", "results/text/files/a"):
        assert user.http.get(f"{path}/{name}?file=9").status_code == 404, name
        assert user.http.get(f"{path}/{name}?file=0").status_code == 422, name


def test_a_cancellation_does_not_bring_a_result_of_an_earlier_file_back(user: User) -> None:
    document = user.upload(pdf("one"))
    processed(user, document)
    replaced(user, user.document(document["id"]), pdf("two"))
    job = user.start(document["id"], params={"seconds": 60})
    user.http.post(f"/jobs/{job['id']}/cancel")
    now = user.document(document["id"])
    assert (now["status"], now["job_id"], now["error"]) == ("UPLOADED", None, None)
    processed(user, now)
    assert user.document(document["id"])["status"] == "COMPLETED"


def test_a_failed_document_gets_another_file(user: User) -> None:
    document = user.upload(pdf("one"))
    processed(user, document, params={"seconds": 0, "fail": "permanent"})
    document = user.document(document["id"])
    now = replaced(user, document, pdf("two"))
    assert (document["status"], now["status"], now["error"], now["job_id"]) == ("FAILED", "UPLOADED", None, None)


def test_files_are_listed_newest_first(user: User) -> None:
    document = user.upload(pdf("0"), "a.pdf")
    me = user.http.get("/auth/me").json()["id"]
    for text in "123":
        document = replaced(user, document, pdf(text))
    found = files(user, document)
    assert [each["number"] for each in found] == [4, 3, 2, 1]
    assert [each["current"] for each in found] == [True, False, False, False]
    assert [each["sha256"] for each in found] == [hashlib.sha256(pdf(text)).hexdigest() for text in "3210"]
    assert [each["stored_by"] for each in found] == [f"user:{me}"] * 3 + [None]
    assert [bool(each["replaced_at"]) for each in found] == [False, True, True, True]
    assert found[-1]["stored_at"] == document["created_at"]
    path, cursor, paged = f"/documents/{document['id']}/files", None, []
    while cursor is not None or not paged:
        page = user.http.get(path, params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        paged.append([each["number"] for each in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == [[4, 3, 2], [1]]
    assert user.http.get(path, params={"cursor": "x"}).json()["code"] == "invalid-cursor"


def test_a_file_has_a_label_and_may_be_kept(user: User, stranger: User) -> None:
    document = user.upload(pdf("one"))
    path = f"/documents/{document['id']}/files"
    answer = user.http.patch(f"{path}/1", json={"label": "draft", "keep": True})
    assert (answer.status_code, answer.json()["label"], answer.json()["keep"]) == (200, "draft", True)
    assert user.document(document["id"]) == document, "nothing of it has changed"
    document = replaced(user, document, pdf("two"))
    assert [(each["label"], each["keep"]) for each in files(user, document)] == [(None, False), ("draft", True)]
    assert user.http.patch(f"{path}/1", json={"label": None}).json()["label"] is None
    assert user.http.patch(f"{path}/1", json={}).json()["keep"] is True
    assert user.http.patch(f"{path}/1", json={"keep": None}).json()["keep"] is False
    assert user.http.patch(f"{path}/2", json={"label": "e\u0301"}).json()["label"] == "é"
    for body in ({"label": ""}, {"label": "x" * 101}, {"label": "a\nb"}, {"keep": "yes"}, {"size": 1}):
        assert user.http.patch(f"{path}/1", json=body).status_code == 422, body
    assert user.http.patch(f"{path}/3", json={"label": "x"}).status_code == 404
    assert stranger.http.patch(f"{path}/1", json={"label": "x"}).status_code == 404
    told = [event["data"] for event in user.events(document["id"]) if event["event"] == "document.file_edited"]
    assert told == [
        {"number": 1, "fields": ["keep", "label"]},
        {"number": 1, "fields": ["label"]},
        {"number": 1, "fields": ["keep"]},
        {"number": 2, "fields": ["label"]},
    ]


def test_a_previous_file_is_restored_by_a_copy(user: User) -> None:
    document = user.upload(pdf("one"), "one.pdf")
    processed(user, document)
    document = replaced(user, user.document(document["id"]), pdf("two"), "two.pdf")
    path = f"/documents/{document['id']}/files"
    assert user.http.post(f"{path}/1/restore", headers={"If-Match": '"1"'}).status_code == 412
    answer = user.http.post(f"{path}/1/restore", headers={"If-Match": f'"{document["version"]}"'})
    now = answer.json()
    assert (answer.status_code, now["file_number"], now["filename"], now["status"]) == (200, 3, "one.pdf", "UPLOADED")
    assert answer.headers["etag"] == f'"{now["version"]}"'
    assert content(user, now) == pdf("one")
    assert used(user) == 2 * len(pdf("one")) + len(pdf("two"))
    for number in (1, 3):
        again = user.http.post(f"{path}/{number}/restore")
        assert (again.status_code, again.json()) == (200, now), "it has such a file"
    assert user.http.post(f"{path}/9/restore").status_code == 404
    assert user.http.get(f"/documents/{document['id']}/result").json()["code"] == "result-not-ready"
    assert user.http.get(f"/documents/{document['id']}/result?file=1").status_code == 200
    assert user.http.delete(f"{path}/1").status_code == 204
    assert content(user, now) == pdf("one"), "the copy is one of its own"
    told = [event["data"] for event in user.events(document["id"]) if event["event"] == "document.file_replaced"]
    assert [(each["number"], each.get("restored")) for each in told] == [(2, None), (3, 1)]


def test_a_previous_file_is_deleted_with_its_results(user: User, stranger: User) -> None:
    document = user.upload(pdf("one"))
    processed(user, document)
    document = replaced(user, user.document(document["id"]), pdf("two"))
    path = f"/documents/{document['id']}/files"
    assert user.http.delete(f"{path}/2").json()["code"] == "current-file"
    assert user.http.delete(f"{path}/3").status_code == 404
    assert stranger.http.delete(f"{path}/1").status_code == 404
    assert user.http.delete(f"{path}/1").status_code == 204
    assert user.http.delete(f"{path}/1").status_code == 404
    assert [each["number"] for each in files(user, document)] == [2]
    for name in ("content", "result", "results"):
        assert user.http.get(f"/documents/{document['id']}/{name}?file=1").status_code == 404
    assert used(user) == len(pdf("two"))
    assert replaced(user, document, pdf("three"))["file_number"] == 3, "no number is used again"
    [told] = [event["data"] for event in user.events(document["id"]) if event["event"] == "document.file_removed"]
    assert told == {"number": 1, "reason": "deleted"}
