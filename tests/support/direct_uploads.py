"""The calls of a direct upload, as a client makes them."""

import hashlib
from typing import Any

import httpx2

from tests.support.factories import PDF_TYPE
from tests.support.user import User


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def initiate(user: User, content: bytes, *, key: str | None = None, **announced: Any) -> httpx2.Response:
    wanted = {"filename": "report.pdf", "content_type": PDF_TYPE, "size": len(content), **announced}
    headers = {"Idempotency-Key": key} if key else {}
    return user.http.post("/documents/initiate-upload", json=wanted, headers=headers)


def announce(user: User, content: bytes, **announced: Any) -> dict[str, Any]:
    answer = initiate(user, content, **announced)
    assert answer.status_code == 201, answer.text
    upload: dict[str, Any] = answer.json()
    assert answer.headers["location"].endswith(f"/documents/{upload['document_id']}")
    return upload


def put(upload: dict[str, Any], content: Any, url: str | None = None, **headers: str | None) -> int:
    """Send it without any token; returns the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in (upload["headers"] | named).items() if value is not None}
    return httpx2.request(
        upload["method"], url or upload["upload_url"], content=content, headers=sent, timeout=60
    ).status_code


def complete(user: User, upload: dict[str, Any]) -> httpx2.Response:
    return user.http.post(f"/documents/{upload['document_id']}/complete-upload")
