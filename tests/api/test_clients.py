"""What real clients send, and expect to get back: names, spellings, forms, prefixes and other origins."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from tests.api.test_errors import assert_problem
from tests.api.test_uploads import END, part, post
from tests.support.factories import PDF_TYPE, pdf
from tests.support.server import Server
from tests.support.user import PASSWORD, User

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
ORIGIN = "https://app.example.com"


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ('filename="=?utf-8?B?bmHDr3ZlLnBkZg==?="', "naïve.pdf"),
        ("filename=\"=?utf-8?B?bmHDr3ZlLnBkZg==?=\"; filename*=utf-8''na%C3%AFve%202.pdf", "naïve 2.pdf"),
        ("filename*=UTF-8'en'na%C3%AFve.pdf", "naïve.pdf"),
        ("filename*=iso-8859-1''na%EFve.pdf", "naïve.pdf"),
        ("filename=\"plain.pdf\"; filename*=UTF-8''other.pdf", "plain.pdf"),
        ('filename="=?nope?B?eA==?="', "=?nope?B?eA==?=.pdf"),
        ('filename="=?utf-8?b?a?="', "=?utf-8?b?a?=.pdf"),
        ('filename="می‌خواهم.pdf"', "می‌خواهم.pdf"),
        ('filename="👩‍👧.pdf"', "👩‍👧.pdf"),
        ('filename="\u202egpj.pdf"', "gpj.pdf"),
    ],
)
def test_names_as_clients_write_them(user: User, parameters: str, shown: str) -> None:
    response = post(user, part(pdf(), f'name="file"; {parameters}'.encode()) + END)
    assert response.status_code == 201, response.text
    assert response.json()["filename"] == shown


def test_a_text_is_found_in_either_spelling(user: User) -> None:
    for spelling in (COMPOSED, DECOMPOSED):
        metadata = {"folder": spelling, "tags": [COMPOSED, DECOMPOSED], "description": spelling}
        document = user.upload(metadata=metadata)
        assert (document["folder"], document["tags"], document["description"]) == (COMPOSED, [COMPOSED], COMPOSED)
    for name in ("folder", "tag", "q"):
        for spelling in (COMPOSED, DECOMPOSED):
            assert len(user.http.get("/documents", params={name: spelling}).json()["items"]) == 2, (name, spelling)


def test_a_document_is_deleted_at_the_version_that_was_seen(user: User) -> None:
    path = f"/documents/{user.upload()['id']}"
    seen = user.http.get(path).headers["etag"]
    user.http.patch(path, json={"folder": "elsewhere"})
    assert_problem(user.http.delete(path, headers={"If-Match": seen}), 412, "precondition-failed")
    assert user.http.delete(path, headers={"If-Match": user.http.get(path).headers["etag"]}).status_code == 204


@pytest.mark.parametrize("more", ["&", "&scope", "&&", "&scope="])
def test_forms_with_what_means_nothing(server: Server, user: User, more: str) -> None:
    form = f"username={quote(user.email)}&password={quote(PASSWORD)}{more}"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.client().post("/auth/login", content=form, headers=kind).status_code == 200


def test_an_empty_body_in_chunks_is_none(user: User) -> None:
    def nothing() -> Iterator[bytes]:
        yield from ()

    document = user.upload()
    answer = user.http.post(f"/documents/{document['id']}/process", content=nothing())
    assert (answer.status_code, answer.json()["job"]["processor"]) == (202, "simulated")
    untyped = user.http.post(f"/documents/{document['id']}/process", content=iter([b'{"processor": "text"}']))
    assert_problem(untyped, 415, "unsupported-media-type")


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"PUBLIC_URL": "https://example.com/api/", "CORS_ORIGINS": f"{ORIGIN},http://localhost:3000"}
    with Server(tmp_path_factory.mktemp("prefixed") / "var", settings) as server:
        yield server


def test_behind_a_proxy_that_takes_a_prefix_off(prefixed: Server) -> None:
    user = prefixed.register()
    answer = user.post_file(pdf())
    document = answer.json()
    assert answer.headers["location"] == f"/api/documents/{document['id']}"
    job = user.finished(user.start(document["id"])["id"])
    assert job["result_url"] == f"/api/documents/{document['id']}/results/simulated"
    [listed] = user.http.get(f"/documents/{document['id']}/results").json()["items"]
    assert listed["url"] == job["result_url"]
    announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 9}
    upload = user.http.post("/documents/initiate-upload", json=announced).json()
    assert upload["upload_url"].startswith("https://example.com/api/uploads/")
    front = user.http.get("/").text
    assert all(f'href="/api/{place}"' in front for place in ("docs", "openapi.json", "problems"))
    assert "api=https://example.com/api\n" in front
    page = user.http.get("/docs").text
    assert page.count("/api/static-offline-docs/") == 3
    assert "'/api/openapi.json'" in page
    assert user.http.get("/static-offline-docs/swagger-ui.css").status_code == 200
    assert user.http.head("/documents").status_code == 200
    assert user.http.get("/openapi.json").json()["servers"] == [{"url": "/api"}]


def test_pages_of_other_origins(prefixed: Server, server: Server) -> None:
    ask = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "If-Match"}
    with prefixed.client() as client:
        for path in ("/documents", "/auth/login", "/uploads/x"):
            allowed = client.options(path, headers=ask)
            assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
            assert "PUT" in allowed.headers["access-control-allow-methods"]
            assert "If-Match" in allowed.headers["access-control-allow-headers"]
        refused = client.get("/documents", headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
        exposed = refused.headers["access-control-expose-headers"]
        assert {"ETag", "Location", "Retry-After", "X-Request-ID"} <= set(exposed.split(", "))
        assert "access-control-allow-credentials" not in refused.headers
        stranger = client.get("/livez", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers
    without = httpx2.options(f"{server.url}/documents", headers=ask)
    assert (without.status_code, "access-control-allow-origin" in without.headers) == (405, False)


@pytest.mark.parametrize(
    "origins", ["app.example.com", "https://a.example/path", "https://a.example, https://b.example"]
)
def test_origins_that_are_none(tmp_path: Path, origins: str) -> None:
    server = Server(tmp_path / "var", {"CORS_ORIGINS": origins})
    assert server.launch().wait(20) != 0
    assert "CORS_ORIGINS" in server.log_file.read_text()
