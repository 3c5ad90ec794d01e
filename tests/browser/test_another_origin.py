"""A page in a real browser uses the API from another origin."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from shutil import copy
from threading import Thread
from typing import Any

import pytest

from tests.support.browser import NEEDS_BROWSER, PATIENCE, browser
from tests.support.factories import pdf
from tests.support.seaweed import BUCKET, KEY, Prefix, Seaweed
from tests.support.server import Server

PAGE = Path(__file__).with_name("page.html")

STATUSES = {"refused": 401, "me": 200, "uploaded": 201, "replayed": 201, "processed": 202, "job": 200, "result": 200}
STATUSES |= {"listed": 200, "content": 200, "part": 206, "unchanged": 304, "edited": 200, "outdated": 412}
STATUSES |= {"put": 200, "completed": 200, "deleted": 204}

pytestmark = NEEDS_BROWSER


class Handler(SimpleHTTPRequestHandler):
    """Serves the page, and takes its report."""

    def __init__(self, *args: Any, reports: "Queue[Any]", **options: Any) -> None:
        self.reports = reports
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Site:
    """The page's own server."""

    folder: Path
    reports: "Queue[Any]"
    port: int

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def visit(self, api: str) -> dict[str, Any]:
        """Open the page in a browser; returns what it has seen."""
        with browser(self.folder, f"{self.origin}/page.html?api={api}"):
            seen: dict[str, Any] = self.reports.get(timeout=PATIENCE)
        return seen


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path) as site:
        yield site


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    reports: Queue[Any] = Queue()
    served = folder / "site"
    served.mkdir()
    copy(PAGE, served)
    (served / "report.pdf").write_bytes(pdf("Hello", pages=300))
    handler = partial(Handler, directory=str(served), reports=reports)
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Site(folder, reports, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_the_whole_job(site: Site, tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"CORS_ORIGINS": site.origin}) as server:
        seen = site.visit(server.url)
    assert_all_seen(seen)


def assert_all_seen(seen: dict[str, Any]) -> None:
    assert "error" not in seen, seen["error"]
    assert {name: each["status"] for name, each in seen.items()} == STATUSES
    document = seen["uploaded"]["data"]
    assert (document["filename"], document["tags"]) == ("Übersicht.pdf", ["grün"])
    assert seen["uploaded"]["progress"][-1] == 1
    assert seen["uploaded"]["location"] == f"/documents/{document['id']}"
    assert (seen["uploaded"]["replayed"], seen["replayed"]["replayed"]) == (None, "true")
    assert seen["replayed"]["data"] == document
    assert seen["result"]["data"]["data"]["page_count"] == 300
    assert [each["id"] for each in seen["listed"]["data"]["items"]] == [document["id"]]
    assert seen["content"]["same"]
    assert seen["refused"]["data"]["code"] == "unauthorized"
    assert seen["outdated"]["data"]["code"] == "precondition-failed"
    readable = {
        "refused": {"www-authenticate", "x-request-id", "ratelimit", "ratelimit-policy"},
        "processed": {"location", "retry-after"},
        "result": {"etag", "accept-ranges"},
        "content": {"etag", "content-disposition", "content-length"},
        "part": {"content-range"},
        "edited": {"etag"},
    }
    for name, headers in readable.items():
        assert headers <= set(seen[name]["headers"]), name
    assert seen["deleted"]["headers"]["x-request-id"] == "from-a-page"


@pytest.mark.parametrize("origins", ["", pytest.param("https://app.example.com", marks=pytest.mark.long)])
def test_an_origin_that_is_not_named(site: Site, tmp_path: Path, origins: str) -> None:
    with Server(tmp_path / "var", {"CORS_ORIGINS": origins}) as server:
        assert site.visit(server.url) == {"error": "TypeError: Failed to fetch"}


@pytest.mark.parametrize("allowed", [True, pytest.param(False, marks=pytest.mark.long)])
def test_files_in_a_bucket(site: Site, tmp_path: Path, seaweed: Seaweed, *, allowed: bool) -> None:
    """They go there directly if a rule of the bucket's allows the page to send them."""
    settings = KEY | {"AWS_DEFAULT_REGION": "us-east-1", "STORAGE_URL": Prefix(seaweed).url()}
    rule = {
        "AllowedOrigins": [site.origin if allowed else "https://app.example.com"],
        "AllowedMethods": ["PUT"],
        "AllowedHeaders": ["content-type", "if-none-match", "x-amz-checksum-sha256"],
    }
    seaweed.client.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})
    with Server(tmp_path / "var", settings | {"CORS_ORIGINS": site.origin}) as server:
        seen = site.visit(server.url)
    seaweed.client.delete_bucket_cors(Bucket=BUCKET)
    if allowed:
        assert_all_seen(seen)
    else:
        assert seen["outdated"]["status"] == 412
        assert ("put" in seen, seen["error"]) == (False, "TypeError: Failed to fetch")
