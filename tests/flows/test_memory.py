"""What a file of any size costs: the same memory."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import User
from tests.support.victim import memory

T = TypeVar("T")

MEGABYTE = 1024**2
LARGE = 500
MARGIN = 12 * MEGABYTE


class PdfOf:
    """A PDF with a comment of so many bytes, made as it is sent."""

    def __init__(self, padding: int) -> None:
        self._head, self._tail = pdf().split(b"\n", 1)
        self._padding = padding
        self._chunk = bytes(MEGABYTE)
        self.size = len(self._head) + len(b"\n%") + padding + len(b"\n") + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head + b"\n%"
        for left in range(self._padding, 0, -MEGABYTE):
            yield self._chunk[:left]
        yield b"\n" + self._tail


def upload(user: User, file: PdfOf) -> str:
    """Upload a file that is never whole in memory here either."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
    tail = b"\r\n--x--\r\n"

    def body() -> Iterator[bytes]:
        yield head
        yield from file
        yield tail

    headers = {
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(len(head) + file.size + len(tail)),
    }
    answer = user.http.post("/documents", content=body(), headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["size"] == file.size
    return str(answer.json()["id"])


def download(user: User, document_id: str) -> str:
    """The SHA-256 of the content."""
    sha256 = hashlib.sha256()
    with user.http.stream("GET", f"/documents/{document_id}/content") as answer:
        for chunk in answer.iter_bytes():
            sha256.update(chunk)
    return sha256.hexdigest()


def peak_during(server: Server, act: Callable[[], T]) -> tuple[int, T]:
    """The most memory that the server had meanwhile, in bytes. Without the reset, what hashing a password took."""
    process = Path(f"/proc/{server.pid}")
    (process / "clear_refs").write_text("5")
    done = act()
    (line,) = [each for each in (process / "status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) * 1024, done


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    settings = {"MAX_UPLOAD_BYTES": str(2 * LARGE * MEGABYTE)}
    with Server(tmp_path / "var", settings, module="tests.support.visible") as server:
        user = server.register()
        download(user, upload(user, PdfOf(20 * 1024)))
        small, document_id = peak_during(server, lambda: upload(user, PdfOf(20 * 1024)))
        small_read, _ = peak_during(server, lambda: download(user, document_id))

        large, document_id = peak_during(server, lambda: upload(user, PdfOf(LARGE * MEGABYTE)))
        large_read, sha256 = peak_during(server, lambda: download(user, document_id))
        assert large - small < MARGIN
        assert large_read - small_read < MARGIN
        assert sha256 == user.document(document_id)["sha256"]


@pytest.mark.parametrize("length", [1_000_000, 200_000], ids=["partly", "wholly"])
def test_bodies_that_are_refused_are_not_kept(server: Server, length: int) -> None:
    """Connections of what was sent partly stay for a moment, the others for another request."""
    head = f"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    with ExitStack() as connections:
        before = memory(server)
        for _ in range(200):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            connection.sendall(head.encode() + bytes(200_000))
            assert connection.recv(1024).startswith(b"HTTP/1.1 413 ")
        assert memory(server) - before < MARGIN
