"""Direct uploads when the client, the disk or the clock misbehave, and where their URLs lead."""

import socket
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.flows.test_object_storage import ENVIRONMENT
from tests.support.direct_uploads import announce, complete, initiate, put
from tests.support.factories import PDF_TYPE, pdf
from tests.support.seaweed import BUCKET, Prefix
from tests.support.server import Server
from tests.support.volume import Volume
from tests.support.waiting import until

LARGE = pdf("x" * 2_000_000)


def begin_put(upload: dict, length: int) -> bytes:
    url = urlsplit(upload["upload_url"])
    lines = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: a\r\nContent-Type: {PDF_TYPE}\r\nContent-Length: {length}"
    return f"{lines}\r\n\r\n".encode()


def test_a_client_that_goes_away_leaves_nothing_and_may_come_back(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        upload = announce(user, LARGE)
        files = tmp_path / "var" / "files"
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(begin_put(upload, len(LARGE)) + LARGE[:-1])
            until(lambda: list(files.glob("staging/*")))
            assert complete(user, upload).json()["code"] == "upload-missing"
        until(lambda: not list(files.glob("staging/*")))
        assert not list(files.glob("documents/*/*"))
        assert put(upload, LARGE) == 200
        assert complete(user, upload).status_code == 200


def test_a_client_that_stalls_is_cut_off(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"UPLOAD_IDLE_SECONDS": "0.5", "UPLOAD_SLOTS": "1"}) as server:
        user = server.register()
        upload = announce(user, LARGE)
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as connection:
            connection.sendall(begin_put(upload, len(LARGE)) + LARGE[:1000])
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert put(upload, LARGE) == 200


def test_one_that_began_in_time_is_cut_off_before_it_would_be_swept(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"UPLOAD_URL_TTL": "3", "ORPHAN_GRACE_SECONDS": "2"}) as server:
        upload = announce(server.register(), LARGE)
        begun = time.monotonic()
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=0.3)) as connection:
            connection.sendall(begin_put(upload, len(LARGE)) + LARGE[:1000])
            while time.monotonic() - begun < 10:
                try:
                    assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
                    break
                except TimeoutError:
                    connection.sendall(b"x")
        assert time.monotonic() - begun < 6


def test_a_full_disk(tmp_path: Path) -> None:
    files, settings = tmp_path / "var" / "files", {"RESERVE_BYTES": "0"}
    with Volume(files, 6 * 1024**2) as volume, Server(tmp_path / "var", settings, prefix=volume.prefix) as server:
        user = server.register()
        sent, waiting = announce(user, pdf()), announce(user, LARGE)
        assert put(sent, pdf()) == 200
        with volume.full():
            assert put(waiting, LARGE) == 507
            assert complete(user, sent).status_code == 200, "nothing is written to verify a file on the local disk"
        assert put(waiting, LARGE) == 200
        assert complete(user, waiting).status_code == 200


def test_what_is_announced_wrong_is_refused_where_it_is_wrong(tmp_path: Path) -> None:
    wrong = {
        "/filename": {"filename": "..", "content_type": PDF_TYPE, "size": 1},
        "/content_type": {"filename": "a.pdf", "content_type": "image/png", "size": 1},
        "/size": {"filename": "a.pdf", "content_type": PDF_TYPE, "size": "1"},
        "/sha256": {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 1, "sha256": "A" * 64},
        "/metadata/color": {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 1, "metadata": {"color": "red"}},
        "/color": {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 1, "color": "red"},
    }
    with Server(tmp_path / "var", {"MAX_UPLOAD_BYTES": "1000"}) as server:
        user = server.register()
        for pointer, body in wrong.items():
            answer = user.http.post("/documents/initiate-upload", json=body)
            assert (answer.status_code, [each["pointer"] for each in answer.json()["errors"]]) == (422, [pointer])
        large = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 1001}
        assert user.http.post("/documents/initiate-upload", json=large).status_code == 413
        assert user.http.get("/documents").json()["items"] == []


def test_urls_lead_to_the_public_address(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"PUBLIC_URL": "https://files.example.com/api"}) as server:
        upload = announce(server.register(), pdf())
        public = f"https://files.example.com/api/uploads/{upload['document_id']}?"
        assert upload["upload_url"].startswith(public)
        assert put(upload, pdf(), upload["upload_url"].replace("https://files.example.com/api", server.url)) == 200


def test_urls_lead_to_the_public_endpoint_of_a_bucket(prefix: Prefix, tmp_path: Path) -> None:
    with prefix.seaweed.relay() as relay:
        url = f"{prefix.url()}&public_endpoint=http://localhost:{relay.port}"
        with Server(tmp_path / "var", {"STORAGE_URL": url, **ENVIRONMENT}) as server:
            user = server.register()
            upload = announce(user, pdf())
            assert upload["object_key"] == f"{prefix.name}/documents/{upload['document_id']}"
            assert upload["upload_url"].startswith(f"http://localhost:{relay.port}/{BUCKET}/{upload['object_key']}?")
            assert put(upload, pdf()) == 200
            assert complete(user, upload).status_code == 200


def test_a_bucket_that_is_away_when_an_upload_is_completed(prefix: Prefix, tmp_path: Path) -> None:
    with prefix.seaweed.relay() as relay:
        settings = {"STORAGE_URL": prefix.url(relay.port), **ENVIRONMENT}
        with Server(tmp_path / "var", settings) as server:
            user = server.register()
            good, bad = announce(user, pdf()), announce(user, b"x" * 100)
            assert [put(good, pdf()), put(bad, b"x" * 100)] == [200, 200]
            relay.cut()
            assert [complete(user, upload).status_code for upload in (good, bad)] == [503, 503]
            relay.mend()
            assert [complete(user, upload).status_code for upload in (good, bad)] == [200, 422]


def test_a_url_of_ours_ends_when_the_storage_becomes_a_bucket(prefix: Prefix, tmp_path: Path) -> None:
    """What it would put there could take the place of a verified file."""
    with Server(tmp_path / "var") as server:
        user = server.register()
        upload = announce(user, pdf())
        assert server.stop() == 0
        user = server.restarted(user, STORAGE_URL=prefix.url(), **ENVIRONMENT)
        answer = httpx2.put(upload["upload_url"], content=pdf(), headers=upload["headers"], timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (403, "invalid-upload-url")
        assert prefix.objects() == {}
        assert complete(user, upload).json()["code"] == "upload-missing"


def test_a_bucket_is_sent_no_more_than_one_put_can_carry(prefix: Prefix, tmp_path: Path) -> None:
    settings = {"STORAGE_URL": prefix.url(), "MAX_UPLOAD_BYTES": str(6 * 1024**3), **ENVIRONMENT}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        announced = {"filename": "a.pdf", "content_type": PDF_TYPE}
        sizes = (5 * 1024**3, 5 * 1024**3 + 1)
        answers = [user.http.post("/documents/initiate-upload", json={**announced, "size": size}) for size in sizes]
        assert [answer.status_code for answer in answers] == [201, 413]
        assert len(user.http.get("/documents").json()["items"]) == 1


def other(first: httpx2.Response, answer: httpx2.Response) -> httpx2.Response | None:
    return answer if answer.content != first.content else None


def test_a_key_stands_for_an_announcement_no_longer_than_its_url(tmp_path: Path) -> None:
    """So a client may make its keys of its files, and send one again later."""
    with Server(tmp_path / "var", {"UPLOAD_URL_TTL": "3"}) as server:
        user = server.register()
        first, again = (initiate(user, pdf(), key="of the file") for _ in range(2))
        assert again.content == first.content
        assert put(first.json(), pdf()) == 200
        later = until(lambda: other(first, initiate(user, pdf(), key="of the file")))
        assert put(later.json(), pdf()) == 200
        assert complete(user, later.json()).status_code == 200


def test_completions_have_places_of_their_own(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"UPLOAD_SLOTS": "1"}) as server:
        user = server.register()
        sent, stalled = announce(user, pdf()), announce(user, LARGE)
        assert put(sent, pdf()) == 200
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(begin_put(stalled, len(LARGE)) + LARGE[:-1])
            until(lambda: list((tmp_path / "var" / "files").glob("staging/*")))
            assert complete(user, sent).status_code == 200
            assert list((tmp_path / "var" / "files").glob("staging/*"))


def test_only_its_own_url_opens_it(tmp_path: Path) -> None:
    """A token opens nothing here, and a secret of its own no other server's URL."""
    with Server(tmp_path / "one") as one, Server(tmp_path / "two") as two:
        user = one.register()
        upload = announce(user, pdf())
        url = urlsplit(upload["upload_url"])
        bare = f"{one.url}{url.path}?expires=99999999999&signature=ä"
        sent = httpx2.put(bare, content=pdf(), headers={**user.http.headers, "Content-Type": PDF_TYPE}, timeout=60)
        assert (sent.status_code, sent.json()["code"]) == (403, "invalid-upload-url")
        assert put(upload, pdf(), f"{two.url}{url.path}?{url.query}") == 403
