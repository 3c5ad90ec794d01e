"""The files that a document has and had: replaced, listed, read, restored, removed."""

import hashlib
from typing import Any

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
