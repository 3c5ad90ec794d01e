"""Text that PostgreSQL cannot store, wherever the API takes text: refused alike, whichever database it is."""

import json
import re
import socket
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from http.client import HTTPResponse
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes
from uuid import UUID, uuid4

import httpx2
import pytest

from app.main import app
from app.remote.tokens import Claim, ClaimTokens
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.receiver import paused_webhook
from tests.support.user import PASSWORD, User
from tests.support.zygote import run

API = app.openapi()
# Python's json writes both as escapes. As bytes, what would be the surrogate's UTF-8 is none.
HOSTILE = {"NUL": "\0", "a lone surrogate": "\ud800"}

JOBS = {
    "owner_id": "00000000-0000-0000-0000-000000000000",
    "document_id": "00000000-0000-0000-0000-000000000000",
    "processor": "simulated",
    "created_after": "2026-01-01T00:00:00Z",
    "created_before": "2026-01-01T00:00:00Z",
}
METADATA = {"description": "d", "folder": "f", "tags": ["t"]}
FILE_MAP = [{"pages": [0], "name": "n", "metadata": METADATA}]
# Params of other processors than `simulated`, whose params the bodies have.
OF_OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "format": ("text", {"format": "markdown"}),
    "languages": ("ocr", {"languages": ["eng"]}),
    "pages": ("ocr", {"pages": "all"}),
    "file_map": ("split", {"file_map": FILE_MAP}),
    "split_params": ("split", {"split_params": {"file_map": FILE_MAP}}),
    "ranges": ("split", {"ranges": "1"}),
    "prefix": ("split", {"prefix": "p"}),
    "suffix": ("split", {"suffix": "s"}),
    "then": ("split", {"then": {"processor": "text"}}),
    "with": ("merge", {"with": ["00000000-0000-0000-0000-000000000000"]}),
    "filename": ("merge", {"filename": "f"}),
}
BODIES: dict[str, Any] = {
    "register": {"email": "somebody@example.com", "password": PASSWORD},
    "login": {"email": "somebody@example.com", "password": PASSWORD},
    "token": {"grant_type": "password", "username": "somebody@example.com", "password": PASSWORD, "scope": ""},
    "refresh": {"refresh_token": "x"},
    "logout": {"refresh_token": "x"},
    "changePassword": {"current_password": PASSWORD, "new_password": PASSWORD + "!"},
    "createApiKey": {"name": "n", "scopes": ["documents:read"]},
    "initiateUpload": {
        "filename": "a.pdf",
        "content_type": PDF_TYPE,
        "size": 9,
        "sha256": "0" * 64,
        "metadata": METADATA,
    },
    "uploadDocument": {"metadata": METADATA | {"process": {"processor": "simulated", "params": {"fail": "permanent"}}}},
    "editDocument": METADATA | {"expires_at": "2026-01-01T00:00:00Z"},
    "replaceDocumentContent": {"document_id": "00000000-0000-0000-0000-000000000000"},
    "editDocumentFile": {"label": "l"},
    "holdDocument": {"reason": "r"},
    "createWebhook": {"url": "http://127.0.0.1:1024", "event_types": ["job.dead"], "description": "d"},
    "editWebhook": {"url": "http://127.0.0.1:1024", "event_types": ["job.dead"], "description": "d", "state": "PAUSED"},
    "recoverWebhook": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
    "processDocument": {"processor": "simulated", "params": {"fail": "permanent"}, "force": "last"},
    "processBatch": {
        "filter": {
            "status": "UPLOADED",
            "content_type": PDF_TYPE,
            "tag": "t",
            "folder": "f",
            "q": "x",
            "sha256": "0" * 64,
            "parent_id": "00000000-0000-0000-0000-000000000000",
            "created_after": "2026-01-01T00:00:00Z",
            "created_before": "2026-01-01T00:00:00Z",
        },
        "document_ids": ["00000000-0000-0000-0000-000000000000"],
        "cursor": "x",
        "processor": "simulated",
        "params": {"fail": "permanent"},
        "force": "last",
    },
    "changeAccount": {"role": "user"},
    "rerunJobs": {"filter": JOBS, "cursor": "x"},
    "cancelJobs": {"filter": JOBS | {"state": "QUEUED"}, "cursor": "x"},
    "pauseProcessor": {"reason": "x"},
    "claimNextJob": {"worker": "w", "version": "1"},
    "claimJob": {"worker": "w"},
    "heartbeat": {},
    "completeJob": {"data": {}, "outputs": [{"number": 0, "filename": "f", "metadata": METADATA}]},
    "failJob": {"code": "c", "detail": "d"},
}
# Headers that do not apply if they are not understood (RFC 9110, sections 12.5.3, 13.1 and 14.2).
IGNORED = {"Accept", "Accept-Encoding", "If-None-Match", "If-Range", "Range"}


class Place(NamedTuple):
    """Where an operation takes text: `header`, `path`, `query` or a media type, and the names that lead there."""

    method: str
    path: str
    operation: str
    kind: str
    names: tuple[str | int, ...]

    def __str__(self) -> str:
        return "-".join(map(str, (self.operation, self.kind.rpartition("/")[2], *self.names)))


def places() -> Iterator[Place]:
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            for each in operation.get("parameters", []):
                for names in texts(each["schema"]):
                    yield Place(method, path, name, each["in"], (each["name"], *names))
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                for names in texts(content["schema"]):
                    yield Place(method, path, name, kind, names)


def texts(schema: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """The names that lead to each text in what the schema describes. Bytes are no text."""
    if "$ref" in schema:
        schema = API["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "string" and schema.get("format") != "binary":
        yield ()
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from texts(choice)
    for name, inner in schema.get("properties", {}).items():
        yield from ((name, *names) for names in texts(inner))
    if "items" in schema:
        yield from ((0, *names) for names in texts(schema["items"]))


@pytest.fixture(scope="module")
def owner(server):
    return server.operator()


@pytest.fixture(scope="module")
def ids(owner):
    job = owner.start(owner.upload()["id"])
    owner.finished(job["id"])
    webhook_id, delivery_id = paused_webhook(owner)
    return {
        "webhook_id": webhook_id,
        "delivery_id": delivery_id,
        "document_id": job["document_id"],
        "job_id": job["id"],
        "session_id": str(uuid4()),
        "account_id": owner.http.get("/auth/me").json()["id"],
        "key_id": str(uuid4()),
        "processor": "simulated",
        "name": "a.png",
        "number": "1",
    }


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", sorted(set(places())), ids=str)
def test_text_that_postgresql_refuses(owner: User, ids: dict[str, str], place: Place, hostile: str) -> None:
    answer = sent(owner, ids, place, hostile)
    if hostile != "\0" and place.kind == "header" and place.names[0] in IGNORED:
        missing = 404 if place.path.endswith("{name}") else 200
        assert answer.status_code == (403 if place.path.startswith("/admin") else missing), "operators read no content"
    elif hostile != "\0" and place.names == ("If-Match",):
        assert answer.json()["code"] == "precondition-failed"
    elif place.names == ("scope",):
        assert answer.json()["code"] == ("invalid-credentials" if hostile == "\0" else "validation-failed")
    else:
        assert answer.status_code in {400, 404, 422}, answer.text
        assert answer.headers["content-type"] == "application/problem+json" or place.kind == "header"


def sent(user: User, ids: dict[str, str], place: Place, hostile: str) -> httpx2.Response:
    """The answer to a request that would be accepted, but for what is hostile in that place."""
    raw = hostile.encode("utf-8", "surrogatepass")
    name, path, body = str(place.names[0]), place.path.format(**ids), deepcopy(BODIES.get(place.operation))
    headers = {"Authorization": user.http.headers["Authorization"].encode()}
    if API["paths"][place.path][place.method].get("security") == [{"HTTPBearer": []}]:  # the token of a claim
        headers["Authorization"] = f"Bearer {token_of(user, ids['job_id'])}".encode()
    if place.operation == "replaceDocumentContent":
        headers["If-Match"] = b"*"
    match place.kind:
        case "path":
            path = place.path.format(**ids | {name: ids[name] + quote_from_bytes(raw)})
        case "query":
            path += f"?{name}=a{quote_from_bytes(raw)}"
        case "header":
            headers[name] = b'"a' + raw + b'"'
        case _:
            if place.names == ("process",):
                body = {"process": "simulated"}  # the metadata has another
            append(body, place.names, hostile)
            if place.operation == "processBatch":  # which has either
                for other in ("filter", "cursor") if name == "document_ids" else ("document_ids",):
                    del body[other]
    kind, content = encoded(place.operation, body)
    lines = [f"{place.method.upper()} {path} HTTP/1.1", "Host: test", "Connection: close", f"Content-Type: {kind}"]
    head = "\r\n".join([*lines, f"Content-Length: {len(content)}"]).encode()
    head += b"".join(b"\r\n%s: %s" % (header.encode(), value) for header, value in headers.items())
    with socket.create_connection(("127.0.0.1", user.server.port), timeout=10) as connection:
        connection.sendall(head + b"\r\n\r\n" + content)
        answer = HTTPResponse(connection)
        answer.begin()
        with answer:
            return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def token_of(user: User, job_id: str) -> str:
    """As of a claim."""
    tokens = ClaimTokens([(user.server.data_dir / "jwt-secret").read_text()])
    return tokens.issue(Claim(UUID(job_id), 1, datetime.now(UTC), 60, "w", UUID(job_id), None))


def append(body: Any, names: tuple[str | int, ...], text: str) -> None:
    for name, inner in pairwise(names):
        if name == "params" and inner in OF_OTHERS:
            processor, params = OF_OTHERS[str(inner)]
            body |= {"processor": processor, "params": deepcopy(params)}
        if name == "pipeline":
            body |= {"pipeline": ["text"], "params": {}}
            del body["processor"]
        body = body[name]
    body[names[-1]] += text


def encoded(operation: str, body: Any) -> tuple[str, bytes]:
    """The media type and the bytes of a body."""
    if operation == "token":
        fields = {name: quote_from_bytes(value.encode("utf-8", "surrogatepass")) for name, value in body.items()}
        return "application/x-www-form-urlencoded", "&".join(f"{name}={text}" for name, text in fields.items()).encode()
    if operation == "uploadDocument":
        disposition = b'\r\nContent-Disposition: form-data; name="'
        parts = [disposition + b'file"; filename="a"\r\n\r\n' + pdf()]
        for name, value in body.items():
            sent = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()
            parts.append(disposition + name.encode() + b'"\r\n\r\n' + sent)
        return "multipart/form-data; boundary=x", b"--x" + b"\r\n--x".join(parts) + b"\r\n--x--\r\n"
    return "application/json", b"" if body is None else json.dumps(body).encode()


@pytest.mark.parametrize("name", [b"a\0.pdf", b"a\xed\xa0\x80.pdf", b"\xff"])
def test_a_file_name_that_is_no_text(owner: User, name: bytes) -> None:
    """As lenient as browsers need it: what cannot be kept is left out or replaced."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = owner.http.post("/documents", content=head + pdf() + b"\r\n--x--\r\n", headers=headers)
    assert answer.status_code in {201, 400, 422}, answer.text
    assert answer.status_code != 201 or owner.http.get(f"/documents/{answer.json()['id']}").status_code == 200


def test_an_operator_s_search_that_is_no_text(tmp_path: Path) -> None:
    done = run("users", "list", "--search", "\udcff", DATA_DIR=str(tmp_path), **databases.settings(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("search: [^\n]*\n", done.stderr)
