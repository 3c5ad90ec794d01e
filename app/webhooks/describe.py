"""The OpenAPI of the requests that webhooks get."""

from collections.abc import Iterator
from typing import Any

from app.webhooks.payloads import MESSAGES, MessageType

_SUMMARIES = {
    MessageType.DOCUMENT_UPLOADED: "A document's file is stored and verified",
    MessageType.DOCUMENT_PROCESSING: "A job was accepted for a document",
    MessageType.DOCUMENT_COMPLETED: "A document is COMPLETED: it has a current result",
    MessageType.DOCUMENT_FAILED: "A document's last job gave up",
    MessageType.DOCUMENT_DELETED: "A document was moved to the trash, or deleted for good.",
    MessageType.DOCUMENT_RESTORED: "A document was taken out of the trash.",
    MessageType.DOCUMENT_PURGED: "A document is gone for good.",
    MessageType.JOB_DEAD: "A job used up its attempts",
    MessageType.PING: "A test that was asked for",
}
_DESCRIPTION = """\
Sent as Standard Webhooks 1.0 has it, at least once: whoever has seen the `webhook-id` need do nothing. There is no
order but that of `data.document.version`. Verify the signature with the webhook's secret before you use the body."""

_ID = "01939f3e-5c00-7000-8000-000000000001"
_JOB_ID = "01939f3e-5c00-7000-8000-000000000002"
_AT = "2026-11-21T12:00:02.000Z"
_DOCUMENT = {
    "id": _ID,
    "owner_id": "01939f3e-5c00-7000-8000-000000000009",
    "filename": "report.pdf",
    "content_type": "application/pdf",
    "size": 48213,
    "sha256": "3f9b679170b66ad38bb61c6c60af72eccc93ea1e7966215452ceec06e3a1d7bc",
    "folder": "invoices/2026",
    "error": None,
    "created_at": "2026-11-21T12:00:00.000Z",
    "updated_at": _AT,
}
_JOB = {"id": _JOB_ID, "processor": "text", "attempt": 1, "error": None, "dead": False}
_JOB |= {"created_at": "2026-11-21T12:00:01.000Z", "finished_at": _AT}
_ERROR = {"code": "password-protected", "detail": "The file is protected with a password."}
_QUEUED = _JOB | {"state": "QUEUED", "attempt": 0, "finished_at": None}
_DEAD = _JOB | {"state": "FAILED", "attempt": 5, "error": _ERROR, "dead": True}


def _told(status: str, version: int, job: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    document = _DOCUMENT | {"status": status, "version": version, "job_id": _JOB_ID if job else None}
    return {"document": document | more, "job": job, "result_url": None}


_EXAMPLES: dict[MessageType, dict[str, Any]] = {
    MessageType.DOCUMENT_UPLOADED: _told("UPLOADED", 1, None),
    MessageType.DOCUMENT_PROCESSING: _told("PROCESSING", 2, _QUEUED),
    MessageType.DOCUMENT_COMPLETED: _told("COMPLETED", 3, _JOB | {"state": "SUCCEEDED"})
    | {"result_url": f"https://documents.example.com/documents/{_ID}/results/text"},
    MessageType.DOCUMENT_FAILED: _told("FAILED", 3, _JOB | {"state": "FAILED", "error": _ERROR}, error=_ERROR),
    MessageType.DOCUMENT_DELETED: {"document": {"id": _ID, "version": 4}},
    MessageType.DOCUMENT_RESTORED: _told("COMPLETED", 5, _JOB | {"state": "SUCCEEDED"})
    | {"result_url": f"https://documents.example.com/documents/{_ID}/results/text"},
    MessageType.DOCUMENT_PURGED: {"document": {"id": _ID, "version": 5}},
    MessageType.JOB_DEAD: _told("PROCESSING", 2, _DEAD),
    MessageType.PING: {"webhook_id": "01939f3e-5c00-7000-8000-000000000005"},
}


def _headers() -> Iterator[dict[str, Any]]:
    for name, description, example in (
        ("webhook-id", "The event's: the same in each attempt, and in deliveries that are repeated.", _JOB_ID),
        ("webhook-timestamp", "When this attempt was made, in seconds since 1970.", "1795262402"),
        (
            "webhook-signature",
            "`v1,` and the signature in base64; several, with spaces between them, while a secret is replaced.",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ):
        schema = {"type": "string"}
        described = {"description": description, "schema": schema, "example": example}
        yield {"in": "header", "name": name, "required": True, **described}


def webhooks() -> dict[str, Any]:
    """The `webhooks` of the OpenAPI: a request for each type of message."""
    return {kind.value: {"post": _request(kind)} for kind in MessageType}


def _request(kind: MessageType) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{MESSAGES[kind].__name__}"}
    example = {"type": kind.value, "timestamp": _AT, "data": _EXAMPLES[kind]}
    return {
        "operationId": "on" + "".join(part.title() for part in kind.value.split(".")),
        "tags": ["webhooks"],
        "summary": _SUMMARIES[kind],
        "description": _DESCRIPTION,
        "parameters": list(_headers()),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}},
        "responses": {
            "2XX": {"description": "It was taken. Answer within seconds, and work afterwards."},
            "410": {"description": "It is wanted no more: the webhook is disabled."},
            "default": {"description": "Tried again later, as after no answer. Redirects are not followed."},
        },
    }
