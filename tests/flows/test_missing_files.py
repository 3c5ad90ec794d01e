"""A stored file that is missing or damaged: its owner is told so, and the log names it, once for each request."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import select, update

from app.database import now
from app.documents.models import documents, previous_files
from app.files.models import files
from app.processing.models import result_files, results
from tests.flows.test_large_results import read, word
from tests.support import databases
from tests.support.factories import pdf
from tests.support.maker import NAMED
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

LARGE = 3_000_000  # bytes, more than a connection buffers


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with Server(tmp_path / "var", {"PROCESSORS": f"simulated,text,{NAMED}"}) as server:
        yield server.register()


def key_of(user: User, table: Any, document_id: str) -> str:
    """Of the one file that this table has of a document."""
    of = table.c.id if table is documents else table.c.document_id
    query = select(files.c.key).join(table, table.c.file_id == files.c.id).where(of == UUID(document_id))
    with databases.engine(user.server.data_dir).connect() as conn:
        return str(conn.scalars(query).one())


def path_of(user: User, key: str) -> Path:
    return user.server.data_dir / "files" / "documents" / key[-2:] / key.rpartition("/")[2]


def replaced(user: User) -> str:
    """A document that has had another file."""
    document_id: str = user.upload()["id"]
    sent = {"file": ("b.pdf", pdf(uuid4().hex), "application/pdf")}
    answer = user.http.put(f"/documents/{document_id}/content", files=sent, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    return document_id


def told(user: User, event: str, key: str, answer: httpx2.Response, code: str) -> None:
    """The answer has the code, and the log one line about the key."""
    assert (answer.status_code, answer.json()["code"]) == (500, code)
    assert "Retry-After" not in answer.headers
    of_it = [each for each in user.server.logs(event) if each["request_id"] == answer.json()["request_id"]]
    assert [(each["key"], each["level"]) for each in of_it] == [(key, "error")]


def test_of_a_file_that_is_missing_its_owner_is_told_so(user: User) -> None:
    document_id = replaced(user)
    keys = key_of(user, documents, document_id), key_of(user, previous_files, document_id)
    for each in keys:
        path_of(user, each).unlink()
    path = f"/documents/{document_id}"
    for query, key in (("", keys[0]), ("?file=2", keys[0]), ("?file=1", keys[1])):
        told(user, "storage.missing", key, user.http.get(f"{path}/content{query}"), "file-missing")
    ranged = user.http.get(f"{path}/content", headers={"Range": "bytes=1-5"})
    told(user, "storage.missing", keys[0], ranged, "file-missing")
    told(user, "storage.missing", keys[1], user.http.post(f"{path}/files/1/restore"), "file-missing")
    assert len(user.http.get(f"{path}/files").json()["items"]) == 2


def test_of_a_large_result_and_of_a_result_file_too(user: User) -> None:
    document_id = read(user, word("abc ", 40_000))
    key = key_of(user, results, document_id)
    path_of(user, key).unlink()
    for headers in ({"Accept-Encoding": "gzip"}, {"Accept-Encoding": "identity"}, {"Accept": "text/plain"}):
        answer = user.http.get(f"/documents/{document_id}/result", headers=headers)
        told(user, "storage.missing", key, answer, "file-missing")
    made = user.upload()["id"]
    user.finished(user.start(made, processor="maker", params={"documents": 0, "files": 1})["id"])
    (name,) = (each["name"] for each in user.http.get(f"/documents/{made}/results/maker/files").json()["items"])
    key = key_of(user, result_files, made)
    path_of(user, key).unlink()
    told(
        user,
        "storage.missing",
        key,
        user.http.get(f"/documents/{made}/results/maker/files/{name}"),
        "file-missing",
    )


def test_a_previous_file_that_is_damaged_is_not_restored(user: User) -> None:
    document_id = replaced(user)
    key = key_of(user, previous_files, document_id)
    was = path_of(user, key).read_bytes()
    for damaged in (was[:-1] + bytes([was[-1] ^ 1]), was[:-1]):
        path_of(user, key).write_bytes(damaged)
        answer = user.http.post(f"/documents/{document_id}/files/1/restore")
        told(user, "storage.damaged", key, answer, "file-damaged")
    path_of(user, key).write_bytes(was)
    assert user.http.post(f"/documents/{document_id}/files/1/restore").status_code == 200


def test_what_was_deleted_meanwhile_is_not_called_missing(user: User) -> None:
    document_id = user.upload()["id"]
    key = key_of(user, documents, document_id)
    path_of(user, key).unlink()
    with databases.engine(user.server.data_dir).begin() as conn:
        conn.execute(update(files).where(files.c.key == key).values(discarded_at=now()))
    assert user.http.get(f"/documents/{document_id}/content").status_code == 404
    assert user.server.logs("storage.missing") == []


def test_an_answer_with_a_damaged_file_is_broken_off(user: User) -> None:
    """Its length is known to the client, which does not take it for whole; the log has no traceback."""
    document_id = user.upload(pdf("x" * LARGE))["id"]
    read_id = read(user, word("abc ", 500_000))
    for table, of in ((documents, document_id), (results, read_id)):
        path = path_of(user, key_of(user, table, of))
        os.truncate(path, path.stat().st_size * 2 // 3)
    for path, headers in (
        (f"/documents/{document_id}/content", {}),
        (f"/documents/{read_id}/result", {"Accept-Encoding": "identity"}),
    ):
        with pytest.raises(httpx2.RemoteProtocolError):
            user.http.get(path, headers=headers)
    until(lambda: len(user.server.logs("http.broken_off")) == 2)
    assert {each["code"] for each in user.server.logs("http.broken_off")} == {"file-damaged"}
    assert len(user.server.logs("storage.damaged")) == 2
    log = user.server.log_file.read_text()
    assert "Traceback" not in log
    assert "ASGI" not in log
    assert user.http.get(f"/documents/{document_id}").status_code == 200


def test_an_empty_file_and_a_broken_result_are_damaged_from_the_start(user: User) -> None:
    document_id = user.upload()["id"]
    key = key_of(user, documents, document_id)
    path_of(user, key).write_bytes(b"")
    told(user, "storage.damaged", key, user.http.get(f"/documents/{document_id}/content"), "file-damaged")
    read_id = read(user, word("abc ", 40_000))
    key = key_of(user, results, read_id)
    path_of(user, key).write_bytes(b"x" * path_of(user, key).stat().st_size)
    answer = user.http.get(f"/documents/{read_id}/result", headers={"Accept-Encoding": "identity"})
    told(user, "storage.damaged", key, answer, "file-damaged")
