"""Whatever is sent: the answer is a problem that tells nothing of the input or of the inside, and never a 5xx."""

import gzip
import re
import socket
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import closing
from html import unescape
from http.client import HTTPConnection
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest

from app.errors import AppError, DatabaseUnavailable
from tests.support.user import PASSWORD, User

JSON = {"Content-Type": "application/json"}
JSON_ROUTES = {
    "/auth/register": ("POST", "email"),
    "/auth/login": ("POST", "email"),
    "/auth/refresh": ("POST", "refresh_token"),
    "/documents/{id}/process": ("POST", "processor"),
    "/documents/{id}": ("PATCH", "description"),
}
ID_ROUTES = [
    *(("GET", f"/{where}") for where in ("documents/{id}", "jobs/{id}", "problems/{id}")),
    *(("GET", f"/documents/{{id}}/{what}") for what in ("content", "result", "timeline")),
    *(("POST", f"/{where}") for where in ("documents/{id}/process", "jobs/{id}/cancel")),
    *((method, "/documents/{id}") for method in ("PATCH", "DELETE")),
]


@pytest.fixture
def marker():
    """A text that is in the request and should be nowhere else."""
    return f"marker{uuid4().hex}"


@pytest.fixture(scope="module")
def owner(server):
    """A user of whose requests none succeeds."""
    return server.register()


@pytest.fixture(scope="module")
def document_id(owner):
    """One of two documents that have a job each."""
    first, _second = (owner.start(owner.upload()["id"]) for _ in range(2))
    return first["document_id"]


def assert_problem(answer: httpx2.Response, status: int | None = None, code: str | None = None) -> None:
    """The shape of RFC 9457, as this API fills it, for an error of the client's."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.keys() - {"errors"} == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert 400 <= answer.status_code == problem["status"] == (status or problem["status"]) < 500
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["code"] == (code or problem["code"])
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"] == f"urn:request:{problem['request_id']}"
    assert all(each.keys() == {"detail", "pointer"} for each in problem.get("errors", []))


def assert_nothing_told(user: User, answer: httpx2.Response, marker: str, but: str = "") -> None:
    """Neither in the answer nor in the log, in which one member of the lines may hold what was sent."""
    told = answer.text + str(answer.headers)
    assert [inside for inside in ("Traceback", "sqlite", str(user.server.data_dir), "/app/") if inside in told] == []
    assert marker not in told
    lines = [{name: value for name, value in line.items() if name != but} for line in user.server.logs()]
    assert marker not in (str(lines) if but else user.server.log_file.read_text())


def exactly(user: User, method: str, target: str) -> httpx2.Response:
    """Ask for this very target; the usual client would tidy it up."""
    with closing(HTTPConnection("127.0.0.1", user.server.port, timeout=10)) as connection:
        connection.request(method, target, b"{}", {"Authorization": user.http.headers["Authorization"], **JSON})
        with connection.getresponse() as answer:
            return httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())


FRAMEWORK = {
    "no such path": ("GET", "/nowhere", {}, 404, "not-found"),
    "no such document": ("GET", f"/documents/{uuid4()}", {}, 404, "not-found"),
    "large": ("POST", "/auth/login", {"content": bytes(2**20), "headers": JSON}, 413, "payload-too-large"),
    "chunked": ("POST", "/auth/login", {"content": [bytes(8000)] * 2, "headers": JSON}, 413, "payload-too-large"),
    "no form": ("POST", "/documents", {"json": {}}, 415, "unsupported-media-type"),
    "nothing": ("POST", "/auth/register", {"json": {}}, 422, "validation-failed"),
    "bad id": ("GET", "/jobs/1", {}, 422, "validation-failed"),
    "no such problem": ("GET", "/problems/none", {}, 404, "not-found"),
}


@pytest.mark.parametrize(("method", "path", "sent", "status", "code"), FRAMEWORK.values(), ids=FRAMEWORK)
def test_errors_of_the_framework_are_problems(owner, method, path, sent, status, code):
    assert_problem(owner.http.request(method, path, **sent), status, code)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/auth/me", "GET HEAD"), ("/documents", "GET HEAD POST"), (f"/documents/{uuid4()}", "DELETE GET HEAD PATCH")],
    ids=["one route", "two routes", "three routes"],
)
def test_405_lists_the_methods_that_there_are(owner, path, allowed):
    answer = owner.http.put(path)
    assert_problem(answer, 405, "method-not-allowed")
    assert sorted(re.split(", *", answer.headers["allow"])) == allowed.split()


VALUES = {
    "1e999": b"1e999",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "lone surrogate": rb'"\ud800%s"',
    "NUL": rb'"%s\u0000"',
    "number": b"1",
    "5,000 digits": b"9" * 5000,
    "nested": b"[" * 1000 + b"]" * 1000,
    "nested objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "nested for ever": b"[" * 100_000,
    "long": b'"%s' + b"x" * 7000 + b'"',
    "more than 64 KiB": b'"%s' + b"x" * 64 * 1024 + b'"',
    "no UTF-8": b'"%s\xff"',
    "control character": b'"%s\n"',
    "unfinished": b'"%s',
}
BODIES = {name: b'{"FIELD": ' + value + b"}" for name, value in VALUES.items()}
BODIES |= {
    "a list": b'["%s"]',
    "text": b'"%s"',
    "byte order mark": b'\xef\xbb\xbf{"FIELD": "%s"}',
    "twice": b'{} {"%s": 1}',
}


@pytest.mark.parametrize("path", JSON_ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_hostile_json(owner, document_id, marker, body, path):
    method, field = JSON_ROUTES[path]
    content = body.replace(b"FIELD", field.encode()).replace(b"%s", marker.encode())
    answer = owner.http.request(method, path.format(id=document_id), content=content, headers=JSON)
    assert_problem(answer)
    assert_nothing_told(owner, answer, marker)


@pytest.mark.parametrize("params", ['{"seconds": 1e400}', '{"fail": "%s"}', '{"a": ' + "[" * 900 + "]" * 900 + "}"])
@pytest.mark.parametrize("processor", ["simulated", "text", "%s"])
def test_hostile_params(owner, document_id, marker, processor, params):
    content = f'{{"processor": "{processor}", "params": {params}}}'.replace("%s", marker)
    answer = owner.http.post(f"/documents/{document_id}/process", content=content, headers=JSON)
    assert_problem(answer, 422)
    assert_nothing_told(owner, answer, marker)


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_body_of_another_type(owner, document_id, marker, path):
    method, field = JSON_ROUTES[path]
    content, headers = f'{{"{field}": "{marker}"}}', {"Content-Type": "text/plain"}
    answer = owner.http.request(method, path.format(id=document_id), content=content, headers=headers)
    assert_nothing_told(owner, answer, marker)
    assert_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("path", ["/auth/register", "/auth/login"])
@pytest.mark.parametrize("content", ["", '{"email": '], ids=["empty", "unfinished"])
def test_a_body_that_is_no_json_is_wrong_as_a_whole(owner, path, content):
    answer = owner.http.post(path, content=content, headers=JSON)
    assert_problem(answer, 422, "validation-failed")
    assert [place["pointer"] for place in answer.json()["errors"]] == [""]


@pytest.mark.parametrize("path", JSON_ROUTES)
def test_what_is_no_json_is_said_to_be_none_everywhere(owner, document_id, path):
    answer = owner.http.request(JSON_ROUTES[path][0], path.format(id=document_id), content="{", headers=JSON)
    assert answer.json()["errors"] == [{"detail": "The body is not valid JSON.", "pointer": ""}]


def test_control_characters_are_refused_in_words(owner, document_id):
    answers = [
        owner.http.get("/documents?q=%00"),
        owner.http.get("/jobs?processor=%00"),
        owner.http.patch(f"/documents/{document_id}", json={"folder": "a\nb"}),
    ]
    told = [answer.json()["errors"][0]["detail"] for answer in answers]
    assert told == ["Input should have no control characters"] * 3


def test_a_moment_is_refused_with_how_it_is_written(owner):
    answer = owner.http.get("/documents?created_after=2026-01-01T00:00:00+02:00")  # the + is a space
    assert "2026-01-31T12:00:00Z" in answer.json()["errors"][0]["detail"]
    assert "%2B" in answer.json()["errors"][0]["detail"]


ENCODED = {
    **{path: (method, {**JSON}) for path, (method, _) in JSON_ROUTES.items()},
    "/documents": ("POST", {"Content-Type": "multipart/form-data; boundary=b"}),
    "/documents/{id}/content": ("PUT", {"Content-Type": "application/pdf", "If-Match": "*"}),
    "/uploads/{id}?expires=1&signature=0": ("PUT", {"Content-Type": "application/pdf"}),
}


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, GZIP"])
@pytest.mark.parametrize("path", ENCODED)
def test_a_compressed_body_is_refused_for_what_it_is(owner, document_id, path, coding):
    method, headers = ENCODED[path]
    headers = {**headers, "Content-Encoding": coding}
    answer = owner.http.request(method, path.format(id=document_id), content=gzip.compress(b"{}"), headers=headers)
    assert_problem(answer, 415, "unsupported-media-type")
    assert "Content-Encoding" in answer.json()["detail"]
    assert answer.headers["accept-encoding"] == "identity"


def test_a_body_may_be_said_to_be_as_it_is(owner, document_id):
    headers = {**JSON, "Content-Encoding": "identity"}
    assert owner.http.patch(f"/documents/{document_id}", content="{}", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/auth/register", "/auth/login", "/documents/{id}"])
def test_at_most_20_errors_are_listed(owner, document_id, path):
    method = "PATCH" if "id" in path else "POST"
    unknown = {f"f{number}": 1 for number in range(500)}
    answer = owner.http.request(method, path.format(id=document_id), json=unknown)
    assert_problem(answer, 422, "validation-failed")
    assert len(answer.json()["errors"]) == 20


IDS = ["9" * 5000, "%00", "%ff", "..%2f..%2f", "../../", "%F0%9F%93%84", "-1", "'--", "%0d%0aX:%20y", "{id}%00"]


@pytest.mark.parametrize("hostile", IDS, ids=[hostile[:12] for hostile in IDS])
@pytest.mark.parametrize(("method", "path"), ID_ROUTES)
def test_hostile_id(owner, document_id, marker, method, path, hostile):
    answer = exactly(owner, method, path.format(id=hostile.format(id=document_id) + marker))
    assert_problem(answer)
    assert_nothing_told(owner, answer, marker, but="path")


TARGETS = [b"/\xff", b"//[", b"", b"/ /x", b"/\0", b"/" + b"x" * 70_000]


@pytest.mark.parametrize("target", TARGETS, ids=[ascii(target[:4]) for target in TARGETS])
def test_what_is_not_http_is_refused(server, target):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: test\r\n\r\n")
        assert re.match(rb"HTTP/1.1 4\d\d ", connection.recv(4096))


LARGE = {name: [(name, "x" * 2_000_000)] for name in ("X-Large", "Authorization", "Idempotency-Key", "X-Request-ID")}


@pytest.mark.parametrize("headers", [*LARGE.values(), [("X-Many", "x")] * 100_000], ids=[*LARGE, "100,000 headers"])
def test_too_large_headers(owner, headers):
    assert_problem(owner.http.get("/auth/me", headers=headers), 431, "headers-too-large")


ID = str(uuid4())
EARLY, LATE = "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"  # moments before and after all that UTC can tell
ANY_LIST = [
    *(f"limit={limit}" for limit in ("NaN", "1e999", "9" * 5000, "%00", "%ff", "")),
    *("cursor=%00", "cursor=%ff", "cursor=x", "cursor=bnVsbA==", "cursor=" + "x" * 5000, "cursor=" + "W1tb" * 400),
]
QUERIES = {
    "/documents": [
        *ANY_LIST,
        *(f"created_after={quote(time)}" for time in (EARLY, LATE, "9" * 5000, "0.5", "2026-11-22")),
        *(f"created_before={quote(time)}" for time in (EARLY, LATE, "x")),
        *("q=%00", "q=" + "x" * 10_000, "status=%00", "folder=%0a", "tag=%00", "sort=;"),
    ],
    "/jobs": [*ANY_LIST, "state=%00", "state=queued", "dead=%00", "dead=2"],
    "/documents/{id}/timeline": ANY_LIST,
    f"/jobs/{ID}": [f"wait={wait}" for wait in ("NaN", "inf", "1e999", "-1", "31", "%00", "")],
}


@pytest.mark.parametrize("path", QUERIES, ids=[path.replace(ID, "{id}") for path in QUERIES])
def test_hostile_queries(owner, document_id, marker, path):
    target = path.format(id=document_id)
    answers = {query: exactly(owner, "GET", f"{target}?{query}") for query in QUERIES[path]}
    assert {query: answer.status_code for query, answer in answers.items() if answer.status_code != 422} == {}
    for answer in answers.values():
        assert_problem(answer)
    for query in QUERIES[path]:
        assert_nothing_told(owner, exactly(owner, "GET", f"{target}?{query}{marker}&unknown={marker}"), marker)


LISTS = [
    *(f"/documents?sort={field}" for field in ("created_at", "filename", "size")),
    "/jobs?",
    "/documents/{id}/timeline?",
]


@pytest.mark.parametrize("key", [2**63, 2**64 - 1, -(2**63), 1.5, EARLY, LATE, "", "\0", None, [], {}], ids=repr)
@pytest.mark.parametrize("path", LISTS)
def test_tampered_cursor(owner, document_id, path, key):
    list_ = path.format(id=document_id)
    cursor = owner.http.get(f"{list_}&limit=1").json()["next_cursor"]
    keys = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    for place in range(len(keys)):
        tampered = orjson.dumps([*keys[:place], key, *keys[place + 1 :]])
        answer = owner.http.get(f"{list_}&cursor={urlsafe_b64encode(tampered).decode()}")
        if answer.status_code != 200:  # it may happen to be one that the list could have made
            assert_problem(answer, 422, "invalid-cursor")


@pytest.mark.parametrize("code", sorted(AppError.by_code))
def test_every_problem_has_a_page(server, code):
    answer, error = server.client().get(f"/problems/{code}"), AppError.by_code[code]
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<h1>{error.title}</h1>" in answer.text
    assert f"<code>{code}</code>: {error.status} " in answer.text
    assert f'href="problems/{code}"' in server.client().get("/problems").text


def test_the_page_shows_an_example_and_the_calls_that_answer_with_it(server):
    page = server.client().get("/problems/upload-rejected").text
    assert unescape(page).count('"code": "upload-rejected"') == 1
    calls = re.findall("<li><code>(.*?)</code>", page)
    assert calls == ["POST /documents/{document_id}/complete-upload", "PUT /uploads/{document_id}"]


def test_the_page_is_about_the_error_and_not_about_a_special_case_of_it():
    assert DatabaseUnavailable.__subclasses__()
    assert AppError.by_code["database-unavailable"] is DatabaseUnavailable


def test_no_secret_is_told(server):
    email, wrong = f"{uuid4().hex}@example.com", "wrong " + uuid4().hex
    secrets, http = [PASSWORD, wrong], server.client()
    answers = [http.post("/auth/register", json={"email": email, "password": PASSWORD}) for _ in range(2)]
    answers += [http.post("/auth/login", json={"email": email, "password": wrong})]
    answers += [http.post("/auth/login", json={"email": email, "password": wrong, "x": wrong})]
    for _ in range(2):
        tokens = http.post("/auth/login", data={"username": email, "password": PASSWORD}).json()
        secrets += [tokens["access_token"], tokens["refresh_token"]]
        answers += [http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"], "x": 1})]
        altered = {"Authorization": f"Bearer {tokens['access_token']}x"}
        answers += [http.get("/auth/me", headers=altered)]
        answers += [http.get(f"/auth/me?access_token={tokens['access_token']}")]
        http.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
        answers += [http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})]
    secrets += [(server.data_dir / "jwt-secret").read_text(), "argon2"]
    told = "".join(answer.text + str(answer.headers) for answer in answers) + server.log_file.read_text()
    assert [secret for secret in secrets if secret in told] == []


@pytest.mark.parametrize("path", ["/openapi.json", "/auth/me", "/nowhere", "/jobs/1", "/documents?limit=x"])
@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 64])
def test_request_id_is_kept(owner, path, sent):
    answer = owner.http.get(path, headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] == sent
    owner.http.get("/livez")  # by now the line about the request before is written
    lines = owner.server.logs("http.request")
    assert (sent, answer.status_code) in [(line["request_id"], line["status"]) for line in lines]
    assert answer.is_success or answer.json()["request_id"] == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", "<script>", 'a"', "a\tb", "é".encode(), "a/../b", "{}"])
def test_request_id_is_replaced(owner, sent):
    headers = {} if sent is None else {"X-Request-ID": sent}
    answers = [owner.http.get(path, headers=headers) for path in ("/livez", "/nowhere", "/auth/me", "/jobs/1")]
    answers += [
        httpx2.post(f"{owner.server.url}/auth/logout", json={"refresh_token": "x"}, headers=headers, timeout=60)
    ]
    answers += [owner.http.post("/auth/login", content=bytes(1024**2 + 1), headers={**JSON, **headers})]
    answers += [owner.http.get("/auth/me", headers={"X-Large": "x" * 100_000, **headers})]
    ids = [UUID(answer.headers["x-request-id"]) for answer in answers]
    assert len(set(ids)) == len(answers)
    assert {answer.status_code for answer in answers} == {200, 404, 422, 204, 413, 431}
