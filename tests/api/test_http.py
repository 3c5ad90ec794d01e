"""What HTTP promises of every route: methods, queries, sizes, and the headers that keep answers private."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.main import app
from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import User

JSON = {"Content-Type": "application/json"}
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in app.openapi()["paths"].items()
    for method, operation in methods.items()
]
PAGES = ("/docs", "/openapi.json", "/problems", "/problems/not-found", "/static-offline-docs/swagger-ui.css")


def url(path: str) -> str:
    return re.sub(r"{\w+}", str(uuid4()), path)


def pointers(answer: httpx2.Response) -> list[str]:
    return [each["pointer"] for each in answer.json()["errors"]]


@pytest.fixture(scope="module")
def owner(server: Server) -> User:
    """An operator, who may call everything."""
    return server.operator()


@pytest.fixture(scope="module")
def document(owner: User) -> dict[str, Any]:
    job = owner.finished(owner.start(owner.upload()["id"])["id"])
    return owner.document(job["document_id"])


@pytest.fixture(scope="module")
def known(owner: User, document: dict[str, Any]) -> dict[str, str]:
    """What stands in paths, by its name there."""
    key = owner.http.post("/api-keys", json={"name": "one", "scopes": ["documents:read"]}).json()
    made = owner.http.post("/webhooks", json={"url": "http://127.0.0.1:1024/", "event_types": ["job.dead"]})
    assert made.status_code == 201, made.text
    webhook = made.json()
    owner.http.post(f"/webhooks/{webhook['id']}/test")
    (delivery,) = owner.http.get(f"/webhooks/{webhook['id']}/deliveries").json()["items"]
    return {
        "document_id": document["id"],
        "job_id": document["job_id"],
        "processor": "simulated",
        "name": "none",
        "number": "1",
        "account_id": document["owner_id"],
        "key_id": key["id"],
        "webhook_id": webhook["id"],
        "delivery_id": delivery["id"],
    }


# They take the token of a claim.
CLAIMED = [path for _, path, _ in OPERATIONS if path.startswith("/remote/jobs/{job_id}/") and "/claim" not in path]


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path, _ in OPERATIONS if not path.startswith("/uploads") and path not in CLAIMED]
    + [("GET", "/problems")],
)
def test_an_unknown_query_parameter_is_refused(owner: User, method: str, path: str) -> None:
    answer = owner.http.request(method, url(path), params={"limti": "1", "a/b": ""})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
    assert {"/query/limti", "/query/a~1b"} <= set(pointers(answer))


@pytest.mark.parametrize(("path", "name"), [("/documents", "limit"), ("/documents", "status"), ("/jobs/x", "wait")])
def test_a_repeated_query_parameter_is_refused(owner: User, path: str, name: str) -> None:
    answer = owner.http.get(path.replace("x", str(uuid4())), params=[(name, "1"), (name, "1")])
    assert answer.json()["code"] == "validation-failed"
    assert {"detail": "Given more than once", "pointer": f"/query/{name}"} in answer.json()["errors"]


def test_few_and_short_errors_are_listed_for_many_and_long_parameters(owner: User) -> None:
    assert len(pointers(owner.http.get("/jobs", params={f"name{number}": "" for number in range(90)}))) == 20
    assert pointers(owner.http.get("/jobs", params=dict.fromkeys("x" * n for n in range(1, 200)))) == ["/query"]
    assert pointers(owner.http.get("/jobs", params={"x" * 5000: ""})) == ["/query/" + "x" * 64]


ENDLESS = "/events"
CHANGING = {"/metrics", "/readyz", "/audit", "/admin/status", "/webhooks/{webhook_id}/deliveries/{delivery_id}"}
BEHIND_GLASS = {"/admin/documents/{document_id}/content", "/admin/documents/{document_id}/result"}


@pytest.mark.parametrize(
    "path", [path for method, path, _ in OPERATIONS if method == "GET" and path not in {ENDLESS, *CLAIMED}]
)
def test_head_is_get_without_the_body(owner: User, known: dict[str, str], path: str) -> None:
    got, head = (owner.http.request(method, path.format(**known)) for method in ("GET", "HEAD"))
    status = 403 if path in BEHIND_GLASS else 404 if path.endswith("{name}") else 200
    assert (got.status_code, head.status_code, head.content) == (status, status, b"")
    changing = {
        "x-request-id",
        "date",
        "ratelimit",
        "transfer-encoding",
        *(["content-length"] if path in CHANGING | BEHIND_GLASS else []),
    }
    assert {name: head.headers[name] for name in got.headers if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing
    }
    assert owner.http.get("/livez").status_code == 200, "the connection is still of use"


def test_head_of_a_stream_ends(owner: User) -> None:
    head = owner.http.head(ENDLESS)
    assert (head.status_code, head.headers["content-type"], head.content) == (
        200,
        "text/event-stream; charset=utf-8",
        b"",
    )


@pytest.mark.parametrize("path", PAGES)
def test_head_of_a_page(server: Server, path: str) -> None:
    got, head = (server.client().request(method, path) for method in ("GET", "HEAD"))
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_head_of_a_file_ignores_a_range(owner: User, document: dict[str, Any]) -> None:
    """RFC 9110 §14.2: ranges are for GET."""
    head = owner.http.head(f"/documents/{document['id']}/content", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(document["size"]))
    unchanged = owner.http.head(f"/documents/{document['id']}/content", headers={"If-None-Match": head.headers["etag"]})
    assert unchanged.status_code == 304


def test_head_of_a_file_that_is_gone_does_not_read_it(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        document = user.upload()
        for path in (server.data_dir / "files" / "documents").rglob("*"):
            path.unlink() if path.is_file() else None
        content = f"/documents/{document['id']}/content"
        assert user.http.get(content).status_code == 500
        assert user.http.head(content).status_code == 200


@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "LINK"])
def test_a_method_that_no_route_has(owner: User, method: str) -> None:
    answer = owner.http.request(method, "/documents")
    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", [*PAGES, "/metrics"])
def test_405_of_a_page_names_head(server: Server, path: str) -> None:
    answer = server.client().delete(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, path) for method, path, _ in OPERATIONS),
        *(
            ("GET", path)
            for path in ("/docs", "/openapi.json", "/problems", "/problems/not-found", "/static-offline-docs")
        ),
    ],
)
def test_a_slash_too_many_is_not_redirected(owner: User, method: str, path: str) -> None:
    """A redirect repeats the body, and may lead from HTTPS to HTTP."""
    answer = owner.http.request(method, url(path) + "/")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        *((f"/auth/{name}", 8192) for name in ("register", "login", "refresh", "logout")),
        ("/documents/initiate-upload", 65536),
    ],
)
def test_a_body_beyond_the_limit_of_its_route(owner: User, path: str, limit: int) -> None:
    fits, beyond = (b'{"x": "' + b"x" * (size - 9) + b'"}' for size in (limit, limit + 1))
    assert owner.http.post(path, content=fits, headers=JSON).status_code == 422
    for content in (beyond, iter([beyond])):
        answer = owner.http.post(path, content=content, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload-too-large")
        assert str(limit) in answer.json()["detail"]


def test_a_body_of_many_errors_gets_a_short_answer(owner: User, document: dict[str, Any]) -> None:
    """They are not even told apart: that takes longer than to find them."""
    names = ",".join(f'"{number:04x}":0' for number in range(6500))
    for method, path, body in (
        ("PATCH", f"/documents/{document['id']}", f"{{{names}}}"),
        ("POST", f"/documents/{document['id']}/process", f"{{{names}}}"),
        ("POST", f"/documents/{document['id']}/process", f'{{"params":{{{names}}}}}'),
    ):
        answer = owner.http.request(method, path, content=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation-failed")
        assert [each["detail"] for each in answer.json()["errors"]] == ["More than 1000 errors"]


NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"


@pytest.mark.parametrize(
    ("path", "caching", "policy"),
    [
        ("/auth/me", "no-store", NOTHING),
        ("/documents", "no-store", NOTHING),
        ("/documents/{id}", "private, no-cache", NOTHING),
        ("/documents/{id}/timeline", "no-store", NOTHING),
        ("/documents/{id}/result", "private, no-cache", NOTHING),
        ("/documents/{id}/content", "private, no-cache", "default-src 'none'; sandbox"),
        ("/jobs", "no-store", NOTHING),
        ("/nowhere", "no-store", NOTHING),
        ("/livez", "no-store", NOTHING),
        ("/openapi.json", "no-store", NOTHING),
        ("/static-offline-docs/swagger-ui.css", "public, max-age=86400", NOTHING),
        ("/favicon.ico", "public, max-age=86400", NOTHING),
    ],
)
def test_an_answer_is_kept_and_framed_by_nobody(
    owner: User, document: dict[str, Any], path: str, caching: str, policy: str
) -> None:
    headers = owner.http.get(path.format(**document)).headers
    assert headers.get_list("cache-control") == [caching]
    assert headers.get_list("content-security-policy") == [policy]
    assert headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("path", ["/docs", "/problems", "/problems/not-found"])
def test_a_page_runs_what_is_its_own_and_nothing_else(server: Server, path: str) -> None:
    answer = server.client().get(path)
    policy = answer.headers["content-security-policy"]
    allowed = dict(each.split(" ", 1) for each in policy.split("; "))
    assert policy.startswith(NOTHING)
    assert "unsafe" not in policy
    inline = re.findall(r"<(script|style)>(.*?)</\1>", answer.text, re.DOTALL)
    assert inline
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in allowed[f"{kind}-src"]
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", answer.text)
    assert ("'self'" in policy) == (path == "/docs")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that clients reach by HTTPS."""
    settings = {"PUBLIC_URL": "https://documents.example.com"}
    with Server(tmp_path_factory.mktemp("public") / "var", settings) as server:
        yield server


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/docs", "/auth/me"])
def test_clients_are_told_to_come_by_https(public: Server, path: str) -> None:
    assert public.client().get(path).headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("blanks", [" ", "  ", "     "])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_may_follow_several_blanks(owner: User, scheme: str, blanks: str) -> None:
    """RFC 9110 §11.6.2: one or more."""
    sent = f"{scheme}{blanks}{owner.tokens['access_token']}"
    assert owner.http.get("/auth/me", headers={"Authorization": sent}).status_code == 200


def test_what_an_upload_says_beside_its_signature_changes_nothing(owner: User) -> None:
    content = pdf(uuid4().hex)
    told = {"filename": "a.pdf", "content_type": "application/pdf", "size": len(content)}
    upload = owner.http.post("/documents/initiate-upload", json=told).json()
    answer = httpx2.put(f"{upload['upload_url']}&utm_source=x", content=content, headers=upload["headers"], timeout=60)
    assert answer.status_code == 200
