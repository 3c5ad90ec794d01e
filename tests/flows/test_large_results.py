"""Results above 64 KiB: files in the storage, streamed, and gone with their documents."""

import gzip
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, func, select, update

from app.documents.models import documents
from app.files.models import files
from app.processing.models import results
from tests.flows.test_memory import MEGABYTE, peak_during
from tests.support import databases
from tests.support.factories import DOCX_TYPE, MAIN, docx_with
from tests.support.seaweed import KEY, Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

SMALL = 64 * 1024  # bytes of data that stay in the row
PLAIN = {"Accept-Encoding": "identity"}
GZIP = {"Accept-Encoding": "gzip"}
EMOJI = 10_000_000


def word(text: str, times: int = 1) -> bytes:
    """A DOCX of one paragraph, in runs: a parser takes no text node of more than 10 MB."""
    runs = f"<w:r><w:t>{text}</w:t></w:r>" * times
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f'<w:document xmlns:w="{namespace}"><w:body><w:p>{runs}</w:p></w:body></w:document>'
    # What does not compress lets through what does: of an archive that is blown up too far nothing is read.
    return docx_with({MAIN: body.encode()} | ({"word/media/image1.png": os.urandom(MEGABYTE)} if times > 1 else {}))


def read(user: User, content: bytes, timeout: float = 60, **params: int) -> str:
    """The id of a new document whose text was read."""
    document_id: str = user.upload(content, "a.docx", content_type=DOCX_TYPE)["id"]
    job = user.finished(user.start(document_id, processor="text", params=params)["id"], timeout)
    assert job["state"] == "SUCCEEDED", job
    return document_id


def path_of(document_id: str) -> str:
    return f"/documents/{document_id}/results/text"


def stored(server: Server) -> set[str]:
    """The names of the files in the storage."""
    return {path.name for path in (server.data_dir / "files" / "documents").glob("??/*")}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[User, str]]:
    """A user and a document whose result is large: all kinds of characters, hard to compress."""
    with Server(tmp_path_factory.mktemp("large") / "var") as server:
        user = server.register()
        noise = "".join(f"{uuid4().hex} é😀 ”\\/ " for _ in range(12_000))
        yield user, read(user, word(noise))


def test_a_large_result_is_what_a_small_one_would_be(large: tuple[User, str]) -> None:
    user, document_id = large
    answer = user.http.get(path_of(document_id), headers=PLAIN)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert int(answer.headers["content-length"]) == len(answer.content) > SMALL
    assert list(answer.json()) == [
        "document_id", "job_id", "processor", "processor_version", "input_sha256", "params", "data", "file_number",
        "created_at"
    ]  # fmt: skip
    assert answer.content == json.dumps(answer.json(), ensure_ascii=False, separators=(",", ":")).encode()
    data = answer.json()["data"]
    assert len(data["text"]) == data["characters"] > 400_000
    assert user.http.get(f"/documents/{document_id}/result", headers=PLAIN).content == answer.content
    small = user.http.get(path_of(read(user, word("x"))), headers=PLAIN)
    assert list(small.json()) == list(answer.json())
    assert small.content == json.dumps(small.json(), ensure_ascii=False, separators=(",", ":")).encode()
    assert {*small.headers} == {*answer.headers}


def test_the_text_of_a_large_result_alone(large: tuple[User, str]) -> None:
    user, document_id = large
    answer = user.http.get(path_of(document_id), headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text == user.http.get(path_of(document_id)).json()["data"]["text"]


def test_the_row_holds_no_data(large: tuple[User, str]) -> None:
    user, document_id = large
    with databases.engine(user.server.data_dir).connect() as conn:
        of_it = select(results, files).join(files, files.c.id == results.c.file_id)
        row = conn.execute(of_it).one()
    assert row.data == {}
    assert row.size_1 < row.size == len(user.http.get(path_of(document_id)).content)
    assert str(row.file_id) in stored(user.server)


def test_it_is_sent_compressed_to_those_who_accept_that(large: tuple[User, str]) -> None:
    user, document_id = large
    plain = user.http.get(path_of(document_id), headers=PLAIN)
    with user.http.stream("GET", path_of(document_id), headers=GZIP) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(raw) < len(plain.content)
    assert gzip.decompress(raw) == plain.content
    assert answer.headers["vary"] == plain.headers["vary"] == "Accept, Accept-Encoding"
    assert answer.headers["etag"] != plain.headers["etag"]
    assert user.http.get(path_of(document_id)).content == plain.content, "the client's own default"
    for accepted in ("gzip;q=0", "deflate, gzip; q=0.0", "br", "x-gzipped"):
        other = user.http.get(path_of(document_id), headers={"Accept-Encoding": accepted})
        assert "content-encoding" not in other.headers
    for accepted in ("br, gzip", "GZIP;q=0.1", "deflate;q=1,gzip;q=1.0,*;q=0"):
        other = user.http.get(path_of(document_id), headers={"Accept-Encoding": accepted})
        assert other.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("encoding", [PLAIN, GZIP])
def test_who_has_it_is_not_sent_it_again(large: tuple[User, str], encoding: dict[str, str]) -> None:
    user, document_id = large
    etag = user.http.get(path_of(document_id), headers=encoding).headers["etag"]
    again = user.http.get(path_of(document_id), headers=encoding | {"If-None-Match": f'"x", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert user.http.get(path_of(document_id), headers=encoding | {"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("accepted", [PLAIN, GZIP])
def test_ranges_are_of_the_json(large: tuple[User, str], accepted: dict[str, str]) -> None:
    user, document_id = large
    whole = user.http.get(path_of(document_id), headers=PLAIN).content
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=70000-200000", 70_000, 200_001),
        ("bytes=65536-65536", 65_536, 65_537),
        (f"bytes={len(whole) - 5}-", len(whole) - 5, len(whole)),
        ("bytes=-100000", len(whole) - 100_000, len(whole)),
    ):
        part = user.http.get(path_of(document_id), headers=accepted | {"Range": asked})
        assert (part.status_code, part.content) == (206, whole[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"
        assert "content-encoding" not in part.headers
    beyond = user.http.get(path_of(document_id), headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    assert beyond.json()["code"] == "range-not-satisfiable"


def test_a_compressed_download_is_resumed_with_its_etag(large: tuple[User, str]) -> None:
    user, document_id = large
    with user.http.stream("GET", path_of(document_id), headers=GZIP) as answer:
        raw = b"".join(answer.iter_raw())
    asked = GZIP | {"Range": "bytes=1000-", "If-Range": answer.headers["etag"]}
    with user.http.stream("GET", path_of(document_id), headers=asked) as rest:
        assert b"".join(rest.iter_raw()) == raw[1000:]
    assert (rest.status_code, rest.headers["content-encoding"]) == (206, "gzip")


def test_small_results_have_an_etag_and_ranges_too(user: User) -> None:
    document_id = read(user, word("x"))
    answer = user.http.get(path_of(document_id))
    asked = {"If-None-Match": answer.headers["etag"]}
    assert user.http.get(path_of(document_id), headers=asked).status_code == 304
    part = user.http.get(path_of(document_id), headers={"Range": "bytes=3-8"})
    assert (part.status_code, part.content) == (206, answer.content[3:9])


@pytest.mark.parametrize("over", [0, 1])
def test_the_border(user: User, over: int) -> None:
    around = len(json.dumps(user.http.get(path_of(read(user, word("x")))).json()["data"], separators=(",", ":"))) - 1
    digits = len(str(SMALL)) - 1  # of `characters`
    document_id = read(user, word("x" * (SMALL - around - digits + over)))
    with databases.engine(user.server.data_dir).connect() as conn:
        row = conn.execute(select(results).where(results.c.input_sha256 == user.document(document_id)["sha256"])).one()
    assert (row.file_id is not None) == bool(over)
    listed = user.http.get(f"/documents/{document_id}/results").json()["items"][0]
    assert (listed["data"] is None) == bool(over)
    assert user.http.get(path_of(document_id)).json()["data"]["characters"] == SMALL - around - digits + over


def test_a_list_has_large_results_without_their_data(large: tuple[User, str]) -> None:
    user, document_id = large
    user.finished(user.start(document_id, params={"seconds": 0})["id"])
    answer = user.http.get(f"/documents/{document_id}/results")
    assert len(answer.content) < SMALL
    simulated, text, *_ = answer.json()["items"]
    assert (text["data"], text["url"]) == (None, path_of(document_id))
    single = user.http.get(text["url"], headers=PLAIN)
    assert text["size"] == len(single.content)
    shared = {name: value for name, value in single.json().items() if name != "data"}
    assert text == shared | {"data": None, "size": text["size"], "url": text["url"]}
    assert simulated["data"] == user.http.get(simulated["url"]).json()["data"]


def test_what_the_release_before_kept_in_a_row_is_not_listed_either(user: User) -> None:
    document_id = read(user, word("x"))
    data = {"text": "\u00e9" * SMALL}
    with databases.engine(user.server.data_dir).begin() as conn:
        sha256 = user.document(document_id)["sha256"]
        conn.execute(update(results).where(results.c.input_sha256 == sha256).values(data=data))
    (listed,) = user.http.get(f"/documents/{document_id}/results").json()["items"]
    single = user.http.get(path_of(document_id))
    assert (listed["data"], single.json()["data"]) == (None, data)
    assert listed["size"] == len(single.content)


def test_a_slow_reader_holds_a_download(tmp_path: Path) -> None:
    settings = {"DOWNLOAD_SLOTS": "1"}
    with Server(tmp_path / "var", settings, module="tests.support.impatient") as server, ExitStack() as open_:
        user = server.register()
        document_id = read(user, word("".join(uuid4().hex for _ in range(31_000))))
        idle = open_.enter_context(reader(user, path_of(document_id)))
        assert idle.recv(1)
        busy = user.http.get(path_of(document_id))
        assert (busy.status_code, busy.json()["code"]) == (503, "too-busy")
        until(lambda: user.http.get(path_of(document_id)).status_code == 200)  # it was cut off
        assert server.logs("http.cut_off")


def reader(user: User, path: str) -> socket.socket:
    """A client that asks for a file and reads only when told to."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    connection.connect(("127.0.0.1", user.server.port))
    token = user.http.headers["Authorization"]
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n".encode())
    return connection


def sizes(server: Server) -> int:
    """The bytes of all files in the storage."""
    return sum(path.stat().st_size for path in (server.data_dir / "files" / "documents").glob("??/*"))


def used(user: User) -> int:
    bytes_: int = user.http.get("/auth/me").json()["usage"]["bytes"]
    return bytes_


def test_large_results_count_as_their_owner_s_bytes(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        content = word("".join(uuid4().hex for _ in range(5000)))
        document_id = read(user, content)
        assert used(user) == sizes(server) > len(content) + 1000
        before = used(user)
        for characters, expected in ((100_000, range(len(content) + 1, before)), (9, [len(content)])):
            params = {"max_characters": characters}
            user.finished(user.start(document_id, processor="text", params=params)["id"])
            assert used(user) in expected
        user.finished(user.start(document_id, processor="text")["id"])
        assert abs(used(user) - before) < 100, "it names another job"
        assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
        assert used(user) == 0


def test_the_file_goes_with_the_document(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        document_id = read(user, word("x" * 100_000))
        assert len(stored(server)) == 2
        assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
        until(lambda: stored(server) == set())
        assert user.http.get(path_of(document_id)).status_code == 404


@pytest.mark.parametrize("later", ["large", "small"])
def test_the_file_of_a_result_that_is_replaced_is_swept(tmp_path: Path, later: str) -> None:
    with Server(tmp_path / "var", {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        user = server.register()
        document_id = read(user, word("x" * 100_000))
        before = stored(server)
        wanted = {"max_characters": 90_000 if later == "large" else 9}
        user.finished(user.start(document_id, processor="text", params=wanted)["id"])
        until(lambda: len(stored(server)) == (2 if later == "large" else 1))
        assert len(stored(server) & before) == 1, "the document"
        assert user.http.get(path_of(document_id)).json()["data"]["characters"] == wanted["max_characters"]


@pytest.mark.parametrize("then", ["deletes", "publishes"])
def test_the_release_before_knows_nothing_of_the_file(tmp_path: Path, then: str) -> None:
    with Server(tmp_path / "var", {"ORPHAN_GRACE_SECONDS": "1"}) as server:
        user, content = server.register(), word("x" * 100_000)
        document_id = read(user, content)
        with databases.engine(server.data_dir).begin() as conn:
            if then == "deletes":
                conn.exec_driver_sql("PRAGMA foreign_keys = ON" if not databases.POSTGRESQL else "SELECT 1")
                conn.execute(delete(documents))
            else:
                conn.execute(update(results).values(job_id=uuid4(), data={"text": "short"}))
            left = conn.scalar(select(func.count()).select_from(files).where(files.c.discarded_at.is_(None)))
        assert left == 1, "the document's"
        assert used(user) == (len(content) if then == "publishes" else 0)
        if then == "publishes":
            assert user.http.get(path_of(document_id)).json()["data"] == {"text": "short"}
        until(lambda: len(stored(server)) == 1)


def test_a_server_killed_before_the_commit_leaves_an_orphan_and_no_half(tmp_path: Path) -> None:
    settings = {"FAULT": "result.after_store:1", "LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        document_id = user.upload(word("x" * 100_000), "a.docx", content_type=DOCX_TYPE)["id"]
        with pytest.raises(httpx2.TransportError):
            user.finished(user.start(document_id, processor="text")["id"])
        assert len(stored(server)) == 2
        user = server.restarted(user, FAULT="")
        job = user.http.get("/jobs").json()["items"][0]
        assert user.http.get(path_of(document_id)).status_code == 404
        assert user.finished(job["id"])["attempt"] == 2
        assert len(user.http.get(path_of(document_id)).json()["data"]["text"]) == 100_000
        assert len(stored(server)) == 3
        server.stop()
        user = server.restarted(user, ORPHAN_GRACE_SECONDS="1")
        until(lambda: len(stored(server)) == 2)
        assert user.http.get(path_of(document_id)).status_code == 200


def test_a_server_killed_after_the_commit_has_published_the_whole(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"FAULT": "finish.after_commit:1"}) as server:
        user = server.register()
        document_id = user.upload(word("x" * 100_000), "a.docx", content_type=DOCX_TYPE)["id"]
        with pytest.raises(httpx2.TransportError):
            user.finished(user.start(document_id, processor="text")["id"])
        user = server.restarted(user, FAULT="")
        assert len(user.http.get(path_of(document_id)).json()["data"]["text"]) == 100_000


@pytest.mark.long
def test_in_a_bucket(prefix: Prefix, tmp_path: Path) -> None:
    settings = {"STORAGE_URL": prefix.url(), **KEY, "AWS_EC2_METADATA_DISABLED": "true"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        document_id = read(user, word("".join(uuid4().hex for _ in range(6000))))
        assert len(prefix.objects()) == 2
        plain = user.http.get(path_of(document_id), headers=PLAIN)
        assert user.http.get(path_of(document_id), headers=GZIP).content == plain.content
        part = user.http.get(path_of(document_id), headers={"Range": "bytes=100000-150000"})
        assert part.content == plain.content[100_000:150_001]
        assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
        until(lambda: prefix.objects() == {})


def test_it_moves_with_the_files(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        document_id = read(user, word("x" * 100_000))
        before = user.http.get(path_of(document_id)).content
        server.stop()
        new = {"STORAGE_URL": (tmp_path / "new").as_uri()}
        old = (tmp_path / "var" / "files").as_uri()
        done = run("transfer", "--from-storage-url", old, **server.environment | new)
        assert done.returncode == 0, done.stderr
        assert "2 copied" in done.stdout
        user = server.restarted(user, **new)
        assert user.http.get(path_of(document_id)).content == before


def test_params_up_to_what_the_operator_allows(user: User) -> None:
    document_id = user.upload()["id"]
    refused = user.process(document_id, processor="text", params={"max_characters": 1_000_001})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")
    assert refused.json()["errors"][0]["pointer"] == "/params/max_characters"
    described = user.http.get("/openapi.json").json()["components"]["schemas"]["TextParams"]["properties"]
    assert described["max_characters"]["maximum"] == 1_000_000
    assert described["max_characters"]["description"].endswith("Default: 1000000.")


def test_a_job_accepted_under_other_settings_fails_at_once(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "0", "TEXT_MAX_CHARACTERS": "2000000"}) as server:
        user = server.register()
        document_id = user.upload()["id"]
        job_id = user.start(document_id, processor="text", params={"max_characters": 2_000_000})["id"]
        server.stop()
        user = server.restarted(user, JOB_CONCURRENCY="4", TEXT_MAX_CHARACTERS="50")
        job = user.finished(job_id)
        assert (job["state"], job["attempt"], job["error"]["code"]) == ("FAILED", 1, "invalid-params")


@pytest.mark.long
def test_memory_stays_flat_whatever_becomes_of_a_small_file(tmp_path: Path, record_property: Any) -> None:
    """Three files become 40 MB of text each, which forty clients read slowly."""
    with Server(tmp_path / "var", {"TEXT_MAX_CHARACTERS": str(EMOJI)}) as server, ExitStack() as open_:
        user = server.register()
        read(user, word("x" * 100_000))
        ids = [user.upload(word("😀" * 100_000, 100), "a.docx", content_type=DOCX_TYPE)["id"] for _ in range(3)]

        def process() -> None:
            params = {"max_characters": EMOJI}
            jobs = [user.start(each, processor="text", params=params)["id"] for each in ids]
            assert {user.finished(job, timeout=240)["state"] for job in jobs} == {"SUCCEEDED"}

        def read_slowly() -> None:
            clients = [open_.enter_context(reader(user, path_of(each))) for each in ids * 14]
            for _ in range(5):
                for client in clients[:40]:
                    assert client.recv(64 * 1024)
                time.sleep(0.1)

        growth = {}
        for act in (process, read_slowly):
            before, _ = peak_during(server, lambda: time.sleep(0.1))
            growth[act.__name__] = (peak_during(server, act)[0] - before) // MEGABYTE
        record_property("MB for three texts of 40 MB, and for forty slow readers", growth)
        for each in ids:
            with databases.engine(server.data_dir).connect() as conn:
                assert conn.scalar(select(results.c.size).where(results.c.document_id == UUID(each))) > 4 * EMOJI
        assert max(growth.values()) < 20
