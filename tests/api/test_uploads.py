"""POST /documents: what is taken in, what is refused, and that nothing is left of what was refused."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.factories import DOCX_TYPE, PDF_TYPE, bomb_docx, docx, macro_docx, pdf, polyglot, related
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

FORM = "multipart/form-data; boundary=frontier"
END = b"--frontier--\r\n"
LARGE = pdf("x" * 700_000)  # more than is written to the storage in one go
FULL = pdf("x" * 19_000)  # as large as the strict server takes them


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server that takes in little, and waits hardly at all."""
    settings = {"MAX_UPLOAD_BYTES": str(len(FULL)), "UPLOAD_IDLE_SECONDS": "0.5"}
    with Server(tmp_path_factory.mktemp("strict") / "var", settings) as server:
        yield server


def part(content: bytes, parameters: bytes = b'name="file"; filename="a.pdf"') -> bytes:
    return b"--frontier\r\nContent-Disposition: form-data; " + parameters + b"\r\n\r\n" + content + b"\r\n"


def metadata(content: bytes) -> bytes:
    return part(content, b'name="metadata"')


def post(user: User, body: Any, *keys: str | bytes) -> httpx2.Response:
    """An upload with this very body; an iterator is sent in chunks, without a length."""
    headers = [(b"Content-Type", FORM), *((b"Idempotency-Key", key) for key in keys)]
    return user.http.post("/documents", content=body, headers=headers)


@contextmanager
def begun(user: User, body: bytes, *, length: int, **headers: str) -> Iterator[HTTPConnection]:
    """An upload of which only the beginning is sent."""
    lines = {"Authorization": user.http.headers["Authorization"], "Content_Type": FORM, "Content_Length": str(length)}
    with closing(HTTPConnection("127.0.0.1", user.server.port, timeout=10)) as connection:
        connection.putrequest("POST", "/documents")
        for name, value in (lines | headers).items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        yield connection


def answered(connection: HTTPConnection) -> tuple[int, str]:
    """The status and code of what the server says, whether or not it has read everything."""
    with connection.getresponse() as response:
        return response.status, json.loads(response.read()).get("code", "")


def files(server: Server) -> set[Path]:
    """What is stored or being received. Files come and go while one looks."""
    folders = (os.walk(server.data_dir / "files" / name) for name in ("documents", "staging"))
    return {Path(folder, name) for found in folders for folder, _, names in found for name in names}


@contextmanager
def leaving_nothing(user: User) -> Iterator[set[Path]]:
    before = files(user.server)
    yield before
    until(lambda: files(user.server) <= before)
    assert user.http.get("/documents").json()["items"] == []


def assert_problem(response: httpx2.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json().get("code")) == (status, code)


@pytest.mark.parametrize("said", [PDF_TYPE, DOCX_TYPE, "image/png"])
@pytest.mark.parametrize(("content", "content_type"), [(pdf(), PDF_TYPE), (docx(), DOCX_TYPE)], ids=["pdf", "docx"])
def test_takes_in_what_the_content_is(user, content, content_type, said):
    before = files(user.server)
    told = {"description": "A\nB", "folder": "f/ü", "tags": ["b", "a", "b"]}
    response = user.post_file(content, "a.pdf", metadata=told, content_type=said)
    document = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"/documents/{document['id']}")
    assert document == user.document(document["id"])
    expected = {"owner_id": user.http.get("/auth/me").json()["id"], "status": "UPLOADED", "version": 1}
    filename = "a.pdf" if content_type == PDF_TYPE else "a.pdf.docx"
    expected |= {
        "filename": filename,
        "content_type": content_type,
        "size": len(content),
        "job_id": None,
        "parent_id": None,
        "error": None,
        "file_number": 1,
        **dict.fromkeys(("deleted_at", "expires_at", "hold")),
    }
    expected |= {"sha256": hashlib.sha256(content).hexdigest(), **told, "tags": ["b", "a"]}
    assert (document | expected, document.keys() - expected) == (document, {"id", "created_at", "updated_at"})
    assert [path.read_bytes() for path in files(user.server) - before] == [content]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("invoice.hta", "invoice.hta.pdf"),
        ("Report.PDF", "Report.PDF"),
        ("report", "report.pdf"),
        ("x" * 255, "x" * 251 + ".pdf"),
        ("a.docx", "a.docx.pdf"),
    ],
)
def test_the_name_says_what_the_file_is(user, sent, stored):
    """Desktops choose by it which program opens the file."""
    document = user.post_file(pdf(), sent).json()
    assert document["filename"] == stored
    served = user.http.get(f"/documents/{document['id']}/content").headers["content-disposition"]
    assert served == f"attachment; filename=\"{stored}\"; filename*=UTF-8''{stored}"


PLACES = [
    ({"tags": ["", "ok", "x" * 51, 1, "a\0"]}, ["/tags/0", "/tags/2", "/tags/3", "/tags/4"]),
    ({"description": "x" * 2001, "folder": "", "a/b~c": 1}, ["/description", "/folder", "/a~1b~0c"]),
    ({"description": "\x1b[31m", "folder": "x" * 256, "tags": "a"}, ["/description", "/folder", "/tags"]),
    ({"description": 1, "folder": "a\nb", "tags": list("0123456789" * 6)}, ["/description", "/folder", "/tags"]),
    ('{"description": NaN}', ["/description"]),
    *((text, [""]) for text in ("[]", "{", "null", r'{"folder": "\ud800"}', "[" * 50_000)),
]


@pytest.mark.parametrize(("told", "pointers"), PLACES, ids=[repr(told)[:30] for told, _ in PLACES])
def test_metadata_is_refused_at_each_place(user, told, pointers):
    with leaving_nothing(user):
        response = user.post_file(pdf(), metadata=told)
        assert_problem(response, 422, "validation-failed")
        found = [place["pointer"] for place in response.json()["errors"]]
        assert found == [f"/metadata{pointer}" for pointer in pointers]


SHOWN = {
    "path": (b"../../etc/passwd.pdf", "passwd.pdf"),
    "path of Windows": (b"C:\\\\Users\\\\ada\\\\a.pdf", "a.pdf"),
    "control characters": (b" a\0b\x07\x1b[31m\t.pdf ", "ab[31m.pdf"),
    "right-to-left override": ("invoice\u202efdp.exe.pdf".encode(), "invoicefdp.exe.pdf"),
    "unicode": ("Übersicht — 履歴書 📄.pdf".encode(), "Übersicht — 履歴書 📄.pdf"),
    "decomposed": (b"e\xcc\x81.pdf", "é.pdf"),
    "no UTF-8": (b"\xff.pdf", "\ufffd.pdf"),
    "quotes": (rb"a \"b\" ;c=d.pdf", 'a "b" ;c=d.pdf'),
    "4,000 characters": (b"x" * 4000 + b".pdf", "x" * 251 + ".pdf"),
}


@pytest.mark.parametrize(("sent", "shown"), SHOWN.values(), ids=SHOWN)
def test_filename_is_made_fit_to_show(user, sent, shown):
    response = post(user, part(pdf(), b'name="file"; filename="' + sent + b'"') + END)
    assert (response.status_code, response.json()["filename"]) == (201, shown)


REFUSED = {
    (422, "malformed-multipart"): {
        "nothing": b"",
        "no parts": END,
        "no file": metadata(b"{}") + END,
        "two files": part(pdf()) + part(pdf("other")) + END,
        "metadata twice": part(pdf()) + metadata(b"{}") + metadata(b"{}") + END,
        "unknown part": part(pdf()) + part(b"1", b'name="other"') + END,
        "another boundary": (part(pdf()) + END).replace(b"frontier", b"frontiers"),
        "1,500 headers": part(pdf()).replace(b"\r\n\r\n", b"\r\nX: y" * 1500 + b"\r\n\r\n", 1) + END,
        "header without a name": part(pdf()).replace(b"\r\n\r\n", b"\r\n: y\r\n\r\n", 1) + END,
        "folded header": part(pdf()).replace(b"\r\n\r\n", b"\r\n y\r\n\r\n", 1) + END,
        "no headers": b"--frontier\r\n\r\n" + pdf() + b"\r\n" + END,
        "10 KB before the first part": b"x" * 10_000 + b"\r\n" + part(pdf()) + END,
        "no filename": part(pdf(), b'name="file"') + END,
        "filename empty": part(pdf(), b'name="file"; filename=""') + END,
        "filename of dots": part(pdf(), b'name="file"; filename="a/.."') + END,
        "filename of control characters": part(pdf(), b'name="file"; filename="\0\x1b"') + END,
        "filename of 9,000 characters": part(pdf(), b'name="file"; filename="' + b"x" * 9000 + b'"') + END,
    },
    (415, "unsupported-document"): {
        "empty": part(b"") + END,
        "half a pdf": part(LARGE[:600_000]) + END,
    },
    (415, "macros-not-allowed"): {"macros": part(macro_docx()) + END},
    (415, "active-content"): {"an OLE object": part(related(("oleObject", "a.bin"))) + END},
    (415, "external-reference"): {
        "a remote template": part(related(("attachedTemplate", "https://example.com/a.dotm", "External"))) + END
    },
    (415, "polyglot-file"): {"polyglot": part(polyglot()) + END},
    (422, "unsafe-archive"): {"bomb": part(bomb_docx()) + END},
}


@pytest.mark.parametrize(
    ("refusal", "body"),
    [pytest.param(refusal, body, id=name) for refusal, bodies in REFUSED.items() for name, body in bodies.items()],
)
def test_refuses(user, refusal, body):
    with leaving_nothing(user):
        assert_problem(post(user, body), *refusal)


TAKEN = {
    "a line before the first part": b"This is a multipart message.\r\n" + part(pdf()) + END,
    "blanks after a boundary": (part(pdf()) + END).replace(b"--frontier\r\n", b"--frontier \t\r\n", 1),
    "text after the last part": part(pdf()) + END + b"the end\r\n--frontier\r\n",
    "no line break at the end": part(pdf()) + END.rstrip(),
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("piece", [1, 1000])
def test_a_form_may_have_more_than_its_parts(user, body, piece):
    """RFC 2046 §5.1.1."""
    response = post(user, (body[at : at + piece] for at in range(0, len(body), piece)))
    assert (response.status_code, response.json()["sha256"]) == (201, hashlib.sha256(pdf()).hexdigest())


def test_truncated_form_wherever_it_ends(user):
    body = metadata(b'{"folder": "f"}') + part(pdf()) + END
    with leaving_nothing(user):
        for length in [*range(0, len(body) - 20, 29), *range(len(body) - 20, len(body) - 2)]:
            assert_problem(post(user, body[:length]), 422, "malformed-multipart")
    assert post(user, body).status_code == 201


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.9, 0.9999])
def test_client_that_goes_away_leaves_nothing(user, share):
    body, request_id = part(LARGE) + END, uuid4().hex
    with leaving_nothing(user) as before:
        with begun(user, body[: int(len(body) * share)], length=len(body), X_Request_ID=request_id):
            assert share < 0.9 or until(lambda: files(user.server) - before)
        until(lambda: [line for line in user.server.logs("http.request") if line["request_id"] == request_id])


@pytest.mark.parametrize("share", [0, 0.5])
def test_client_that_stalls_is_cut_off(strict, share):
    user, body = strict.register(), part(pdf()) + END
    with leaving_nothing(user), begun(user, body[: int(len(body) * share)], length=len(body)) as connection:
        assert answered(connection) == (408, "request-timeout")


def test_a_file_that_cannot_be_a_document_is_refused_while_it_arrives(user):
    with leaving_nothing(user), begun(user, part(bytes(2048)), length=50_000_000) as connection:
        assert answered(connection) == (415, "unsupported-document")


TOO_LARGE = {
    "file": [part(pdf("x" * 19_001)), END],
    "metadata": [part(pdf()), metadata(b" " * 70_000), END],
    "what follows the form": [part(pdf()), END, b"x" * 1_000_000],
}


@pytest.mark.parametrize("sent", [b"".join, iter], ids=["length declared", "chunked"])
@pytest.mark.parametrize("chunks", TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large(strict, chunks, sent):
    user = strict.register()
    with leaving_nothing(user):
        assert_problem(post(user, sent(chunks)), 413, "payload-too-large")


@pytest.mark.parametrize("sent", [b"".join, iter], ids=["length declared", "chunked"])
def test_as_large_as_it_may_be(strict, sent):
    chunks = [part(FULL), metadata(b"{" + b" " * 50_000 + b"}"), END]
    assert post(strict.register(), sent(chunks)).json()["size"] == len(FULL)


@pytest.mark.parametrize(
    ("changed", "first_line"),
    [
        ({}, "100 Continue"),
        ({"Authorization": "Bearer nonsense"}, "401 Unauthorized"),
        ({"Authorization": ""}, "401 Unauthorized"),
        ({"Content_Length": "9" * 12}, "413 "),
        ({"Content_Type": FORM.replace("form-data", "mixed")}, "415 "),
        ({"Content_Type": "multipart/form-data"}, "422 "),
        ({"Content_Type": FORM + "x" * 70}, "422 "),
        ({"Idempotency_Key": ""}, "400 "),
    ],
    ids=repr,
)
def test_what_the_headers_tell_is_refused_before_a_byte_of_the_body(user, changed, first_line):
    with leaving_nothing(user), begun(user, b"", length=50_000, Expect="100-continue", **changed) as connection:
        assert connection.sock.recv(4096).decode().startswith(f"HTTP/1.1 {first_line}")


SAME = [('a "b"', r'"a \"b\""'), ("x" * 255, f'"{"x" * 255}"'), ('"' + r"\\" * 255 + '"', "\\" * 255), ("x'y", "x'y")]


@pytest.mark.parametrize(("key", "again"), SAME, ids=["quotes", "255", "255 escapes", "equal"])
def test_same_key_and_file_is_one_upload(user, key, again):
    before, body = files(user.server), metadata(b'{"tags": ["a"]}') + part(pdf()) + END
    first, second = post(user, body, key), post(user, body, again)
    assert first.status_code == second.status_code == 201
    assert (second.content, second.headers["location"]) == (first.content, first.headers["location"])
    assert [response.headers.get("idempotent-replayed") for response in (first, second)] == [None, "true"]
    assert [item["id"] for item in user.http.get("/documents").json()["items"]] == [first.json()["id"]]
    assert len(files(user.server) - before) == 1


def test_key_stands_for_one_file_of_one_user(user, stranger):
    before = files(user.server)
    assert user.post_file(pdf(), key="k").status_code == 201
    for other in (user.post_file(pdf("other"), key="k"), user.post_file(pdf(), key="k", metadata={"folder": "f"})):
        assert_problem(other, 422, "idempotency-key-reused")
    assert len(files(user.server) - before) == len(user.http.get("/documents").json()["items"]) == 1
    assert user.post_file(pdf("other"), key="K").status_code == 201
    assert "idempotent-replayed" not in stranger.post_file(pdf(), key="k").headers


@pytest.mark.parametrize("finishes", [True, False], ids=["the first finishes", "the first goes away"])
def test_same_key_while_the_first_is_still_sending(user, finishes):
    before, body = files(user.server), part(LARGE) + END
    with begun(user, body[:600_000], length=len(body), Idempotency_Key="k") as first:
        until(lambda: files(user.server) - before)
        second = post(user, body, "k")
        assert_problem(second, 409, "request-in-progress")
        assert int(second.headers["retry-after"]) > 0
        if finishes:
            first.send(body[600_000:])
            assert answered(first) == (201, "")
    third = until(lambda: (response := post(user, body, "k")).status_code == 201 and response)
    assert third.headers.get("idempotent-replayed") == ("true" if finishes else None)
    assert len(files(user.server) - before) == 1


def test_a_failed_upload_is_corrected_under_its_key(user):
    assert_problem(user.post_file(b"oops", key="k"), 415, "unsupported-document")
    assert_problem(user.post_file(pdf(), metadata="{", key="k"), 422, "validation-failed")
    assert "idempotent-replayed" not in user.post_file(pdf(), key="k").headers
    assert user.post_file(pdf(), key="k").headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("key", ["", "x" * 256, "é".encode(), "a\tb", '"', '"a', '""', r'"\n"', ["a", "a"]], ids=ascii)
def test_malformed_key(user, key):
    with leaving_nothing(user):
        response = post(user, part(pdf()) + END, *(key if isinstance(key, list) else [key]))
        assert_problem(response, 400, "malformed-idempotency-key")


def test_a_key_goes_with_its_document(user: User) -> None:
    first = user.upload(key="k")
    assert user.process(first["id"], key="p").status_code == 202
    user.finished(user.document(first["id"])["job_id"])
    assert user.http.delete(f"/documents/{first['id']}").status_code == 204
    second = user.post_file(pdf(), key="k")
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]
    assert user.process(second.json()["id"], key="p").status_code == 202
