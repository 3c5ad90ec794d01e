"""The server on a bucket: every call that touches a file, and what happens when the bucket or the client goes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings.storage import PART
from tests.flows.test_memory import PdfOf, download, peak_during, upload
from tests.flows.test_outputs import expire
from tests.flows.test_slow_clients import reader
from tests.support.elsewhere import Insistent, Worker, described
from tests.support.factories import docx_with, pdf
from tests.support.maker import NAMED
from tests.support.relay import Relay
from tests.support.seaweed import BUCKET, KEY, READER, Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

LARGE = PdfOf(2 * PART)
MEBIBYTE = 1024**2
ENVIRONMENT = {**KEY, "AWS_EC2_METADATA_DISABLED": "true"}


@contextmanager
def on(prefix: Prefix, tmp_path: Path, relay: Relay | None = None, **settings: str) -> Iterator[Server]:
    url = prefix.url(relay and relay.port)
    with Server(tmp_path / "var", {"STORAGE_URL": url, **ENVIRONMENT, **settings}) as server:
        yield server


def storage_check(user: User) -> tuple[int, Any]:
    answer = user.http.get("/readyz")
    return answer.status_code, answer.json()["checks"]["storage"]


def keys(*documents: dict[str, Any]) -> set[str]:
    return {f"documents/{document['id']}" for document in documents}


def test_the_life_of_a_document(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path) as server:
        user = server.register()
        content = pdf("in a bucket")
        document = user.upload(content)
        assert prefix.objects() == {f"documents/{document['id']}": len(content)}
        path = f"/documents/{document['id']}/content"
        assert user.http.get(path).content == content
        part = user.http.get(path, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, content[5:10])
        assert user.http.get(path, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
        assert user.finished(user.start(document["id"], processor="text")["id"])["state"] == "SUCCEEDED"
        assert "in a bucket" in user.http.get(f"/documents/{document['id']}/result").text
        assert not [*(tmp_path / "var" / "copies").iterdir()]
        assert user.http.delete(f"/documents/{document['id']}?permanent=true").status_code == 204
        until(lambda: prefix.objects() == {})
        assert not (tmp_path / "var" / "files").exists()
        assert server.stop() == 0


def test_files_of_several_parts(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path) as server:
        user = server.register()
        document = user.document(upload(user, LARGE))
        assert download(user, document["id"]) == document["sha256"]
        noise = os.urandom(PART + 1)
        word = user.upload(docx_with({"word/media/image1.png": noise}), "a.docx")
        assert prefix.objects().keys() == keys(document, word)
        refused = user.post_file(pdf()[:-6] + noise)
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported-document")
        assert prefix.objects().keys() == keys(document, word)
        assert prefix.uploads() == []


def test_memory_does_not_grow_with_the_file(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path) as server:
        user = server.register()
        small = PdfOf(2 * PART)
        download(user, upload(user, small))
        before, _ = peak_during(server, lambda: download(user, upload(user, small)))
        after, _ = peak_during(server, lambda: download(user, upload(user, PdfOf(80 * MEBIBYTE))))
        assert after - before < 24 * MEBIBYTE  # parts in flight, and what the allocator keeps; the file is 80


@pytest.mark.long
def test_downloads_that_nobody_reads_stop_neither_uploads_nor_readiness(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path, DOWNLOAD_SLOTS="3") as server, ExitStack() as idle:
        user = server.register()
        large = upload(user, PdfOf(12 * MEBIBYTE))
        for _ in range(2):
            assert idle.enter_context(reader(user, large)).recv(1)
        assert user.http.get(f"/documents/{large}/content").json()["code"] == "too-busy"
        assert user.post_file(pdf()).status_code == 201
        assert storage_check(user) == (200, "ok")


def test_a_client_that_goes_away_leaves_nothing(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path) as server:
        user = server.register()
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7\n'
        request = (
            f"POST /documents HTTP/1.1\r\nHost: a\r\nAuthorization: {user.http.headers['Authorization']}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 50000000\r\n\r\n"
        )
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(request.encode() + head + bytes(2 * PART))
            until(prefix.uploads)
        until(lambda: (prefix.uploads(), prefix.objects()) == ([], {}))
        assert user.http.get("/documents").json()["items"] == []


@pytest.mark.long
def test_orphans_and_abandoned_uploads_are_swept(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path, ORPHAN_GRACE_SECONDS="1", UPLOAD_MAX_SECONDS="2") as server:
        prefix.put("documents/01939f3e-5c00-7000-8000-0000000000ff", b"orphan")
        prefix.put("documents/README", b"not ours")
        prefix.begin("documents/01939f3e-5c00-7000-8000-0000000000fe")
        kept = server.register().upload()
        left = keys(kept) | {"documents/README"}
        until(lambda: (prefix.objects().keys(), prefix.uploads()) == (left, []))
        time.sleep(2)  # and one more sweep
        assert prefix.objects().keys() == left


@pytest.mark.parametrize("size", [100, 2 * PART])
@pytest.mark.long
def test_a_server_killed_during_an_upload_leaves_what_is_swept(prefix: Prefix, tmp_path: Path, size: int) -> None:
    with on(prefix, tmp_path, FAULT="upload.after_rename:1", ORPHAN_GRACE_SECONDS="60") as server:
        user = server.register()
        with pytest.raises(httpx2.TransportError):
            upload(user, PdfOf(size))
        assert len(prefix.objects()) == 1
        server.restarted(user, FAULT="", ORPHAN_GRACE_SECONDS="1", UPLOAD_MAX_SECONDS="2")
        until(lambda: prefix.objects() == {})


def test_storage_that_goes_and_comes_back(prefix: Prefix, tmp_path: Path) -> None:
    with prefix.seaweed.relay() as relay, on(prefix, tmp_path, relay, LEASE_SECONDS="3") as server:
        user = server.register()
        document = user.upload()
        relay.cut()
        begun = time.monotonic()
        answers = [user.http.get(f"/documents/{document['id']}/content"), user.post_file(pdf())]
        assert time.monotonic() - begun < 20
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "storage-unavailable")] * 2
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        until(lambda: storage_check(user) == (503, "failed: the endpoint cannot be reached"), timeout=5)
        assert user.http.get("/livez").status_code == 200
        assert user.http.get(f"/documents/{document['id']}").status_code == 200
        job = user.start(document["id"], params={"seconds": 0})
        until(lambda: user.job(job["id"])["error"])
        relay.mend()
        back = time.monotonic()
        until(lambda: storage_check(user) == (200, "ok"))
        user.upload()
        assert user.http.get(f"/documents/{document['id']}/content").status_code == 200
        assert time.monotonic() - back < 5
        assert user.finished(job["id"])["state"] == "SUCCEEDED"
        assert len(prefix.objects()) == 2
        assert "Traceback" not in server.log_file.read_text()


@pytest.mark.long
def test_storage_that_is_away_at_start_keeps_a_server_waiting(prefix: Prefix, tmp_path: Path) -> None:
    def status(http: httpx2.Client, path: str) -> int:
        try:
            return http.get(path).status_code
        except httpx2.TransportError:
            return 0

    with prefix.seaweed.relay() as relay:
        relay.cut()
        server = Server(tmp_path / "var", {"STORAGE_URL": prefix.url(relay.port), **ENVIRONMENT})
        server.launch()
        try:
            with httpx2.Client(base_url=server.url, timeout=60) as http:
                until(lambda: status(http, "/livez") == 200)
                assert status(http, "/readyz") == 503
                relay.mend()
                until(lambda: status(http, "/readyz") == 200, timeout=5)
        finally:
            server.kill()


REFUSED = {
    "bucket": ({}, f"STORAGE_URL: bucket {BUCKET[:-1]}: the bucket does not exist (ListObjectsV2)"),
    "key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "the access key is unknown (ListObjectsV2)"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key is wrong (ListObjectsV2)"),
    "reader": (READER, "access is denied (PutObject)"),
    "no client": ({"AWS_CONFIG_FILE": __file__}, "AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE cannot be parsed"),
    "half": ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is required when AWS_ACCESS_KEY_ID is set"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refused_at_start_in_one_line(prefix: Prefix, tmp_path: Path, wrong: str) -> None:
    environment, reason = REFUSED[wrong]
    url = prefix.url().replace(BUCKET, BUCKET[:-1]) if wrong == "bucket" else prefix.url()
    settings = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "STORAGE_URL": url, "PORT": "0"}
    done = run("serve", **settings | ENVIRONMENT | environment)
    (line,) = done.stderr.splitlines()
    assert line.startswith("configuration: ")
    assert line.endswith(reason)
    assert (done.returncode, done.stdout) == (1, "")
    assert "secret" not in line.removesuffix(reason)


@pytest.mark.long
def test_a_start_that_fails_lets_go_of_the_bucket(prefix: Prefix, tmp_path: Path) -> None:
    (tmp_path / "app.db").write_bytes(b"this is no database " * 100)
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "STORAGE_URL": prefix.url(), **ENVIRONMENT}
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "file is not a database" in done.stderr + done.stdout
    assert "Unclosed" not in done.stderr + done.stdout


def test_what_an_attempt_makes_is_published_or_swept(prefix: Prefix, tmp_path: Path) -> None:
    settings = {"PROCESSORS": f"simulated,{NAMED}", "FAULT": "outputs.before_publish:1", "LEASE_SECONDS": "1"}
    with on(prefix, tmp_path, **settings) as server:
        user = server.register()
        document_id = user.upload()["id"]
        job_id = user.start(document_id, processor="maker", params={"documents": 2, "files": 1})["id"]
        until(lambda: server.process is not None and server.process.poll() is not None)
        assert len(prefix.objects()) == 4
        user = server.restarted(user, FAULT="", ORPHAN_GRACE_SECONDS="1", UPLOAD_MAX_SECONDS="2")
        assert user.finished(job_id)["attempt"] == 2
        children = user.http.get(f"/documents/{document_id}/children").json()["items"]
        file = user.http.get(f"/documents/{document_id}/results/maker/files").json()["items"][0]
        expire(server)
        until(lambda: len(prefix.objects()) == 4)
        for path in (*(f"/documents/{each['id']}/content" for each in children), file["url"]):
            assert user.http.get(path).status_code == 200
        assert prefix.objects().keys() >= keys(*children)


def test_workers_elsewhere_read_from_a_bucket_that_they_can_reach(prefix: Prefix, tmp_path: Path) -> None:
    settings = {"REMOTE_PROCESSORS": str(described(tmp_path))}
    with on(prefix, tmp_path, **settings) as server:
        user, content = server.register(), pdf("read elsewhere")
        wanted = {"name": "a worker", "scopes": ["worker"]}
        worker = Worker(Insistent(server.url), server.operator().http.post("/api-keys", json=wanted).json()["key"])
        job = user.start(user.upload(content)["id"], processor="count")
        assert worker.claim().status_code == 200
        assert worker.held["inputs"][0]["url"] == f"{server.url}/remote/jobs/{job['id']}/inputs/0"
        public = f"http://localhost:{prefix.seaweed.port}"
        server.stop()
        user = server.restarted(user, STORAGE_URL=f"{prefix.url()}&public_endpoint={public}")
        first = renewed(worker)
        time.sleep(1)
        second = renewed(worker)
        for each in (first, second):
            assert each["url"].startswith(f"{public}/{BUCKET}/{prefix.name}/documents/")
            assert each["headers"] == {}
            assert "X-Amz-Expires=360&" in each["url"], "five minutes longer than the lease"
            assert httpx2.get(each["url"], timeout=60).content == content
            assert httpx2.put(each["url"], content=b"else", timeout=60).status_code == 403
        assert datetime.fromisoformat(first["expires_at"]) < datetime.fromisoformat(second["expires_at"])
        assert worker.ask("GET", "inputs/0").content == content, "for whoever cannot reach the bucket"


def renewed(worker: Worker) -> dict[str, Any]:
    answer = worker.beat()
    assert answer.status_code == 200
    (found,) = answer.json()["inputs"]
    return dict(found)
