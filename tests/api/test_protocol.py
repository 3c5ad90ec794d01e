"""What happens before there is a request: slow, endless and malformed headers are cut off, with a problem."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.impatient import HEADER_TIMEOUT
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("impatient") / "var", module="tests.support.impatient") as server:
        yield server


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=HEADER_TIMEOUT * 3)


def answer(connection: socket.socket) -> tuple[str, Any]:
    """The status line and the JSON body of all that comes until the server closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head.lower()
    return head.split(b"\r\n")[0].decode(), json.loads(body)


def flood(connection: socket.socket, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.sendall(b"X-Filler: " + b"x" * 10_000 + b"\r\n")


@pytest.mark.parametrize(
    "begun", [b"", b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: "], ids=["nothing", "half a header"]
)
def test_headers_that_do_not_come(server: Server, begun: bytes) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(begun)
        started = time.monotonic()
        status, problem = answer(connection)
        assert status == "HTTP/1.1 408 Request Timeout"
        assert problem["code"] == "request-timeout"
        assert problem["request_id"]
        assert time.monotonic() - started < HEADER_TIMEOUT * 2


def test_headers_that_do_not_end(server: Server) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            flood(connection, HEADER_TIMEOUT / 2)


def test_headers_that_are_too_large_are_told_so(server: Server) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-Filler: xxxxxxxxxxxxxxxxxxxx\r\n" * 20_000)
        status, problem = answer(connection)
        assert status.startswith("HTTP/1.1 431")
        assert problem["code"] == "headers-too-large"


def test_what_is_not_http(server: Server) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")
        status, problem = answer(connection)
        assert status == "HTTP/1.1 400 Bad Request"
        assert problem["code"] == "bad-request"


def test_a_kept_alive_connection_outlives_the_header_timeout(server: Server) -> None:
    """The clock runs for headers only: not for the answer, and anew for each request."""
    user = server.register()
    job = user.start(user.upload()["id"], params={"seconds": HEADER_TIMEOUT + 1})
    assert user.http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()["state"] == "SUCCEEDED"
    assert user.http.get("/auth/me").status_code == 200
