"""What HTTP demands of a connection: an end to all that is slow or malformed, and bodies read as they were meant."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from app.server.protocol import LINGER_SECONDS
from tests.support.direct_uploads import announce, complete
from tests.support.factories import PDF_TYPE, pdf
from tests.support.impatient import HEADER_TIMEOUT, QUEUE_SECONDS, WORK_TIMEOUT
from tests.support.server import Server
from tests.support.user import PASSWORD
from tests.support.waiting import until


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


STARTED = b"POST /documents HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
JSON = b"Host: a\r\nContent-Type: application/json\r\n"
KEEP_ALIVE_SECONDS = 2.0
UPLOAD_MAX_SECONDS = 1.0
LOAD = 2.0  # seconds by which a loaded machine may be late


class Ended(NamedTuple):
    """How a connection ended, and after how many seconds."""

    received: bytes
    seconds: float


def trickled(server: Server, opening: bytes, drop: bytes) -> Ended:
    """Send the opening, and then some bytes a few times a second for as long as the server lets us."""
    with closing(connected(server)) as connection, suppress(ConnectionError):
        connection.sendall(opening)
        connection.settimeout(0.3)
        received, began = b"", time.monotonic()
        while time.monotonic() < began + WORK_TIMEOUT * 3:
            try:
                if not (chunk := connection.recv(65536)):
                    break
                received += chunk
            except TimeoutError:
                connection.sendall(drop)
        else:
            pytest.fail(f"still open after {received!r}")
    return Ended(received, time.monotonic() - began)


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS), "UPLOAD_MAX_SECONDS": str(UPLOAD_MAX_SECONDS)}
    with Server(tmp_path_factory.mktemp("brisk") / "var", settings, module="tests.support.impatient") as server:
        yield server


def test_no_state_is_prolonged_by_bytes(brisk: Server) -> None:
    user = brisk.register()
    _, job_id = user.begin(seconds=60)
    bearer = f"Authorization: {user.http.headers['Authorization']}\r\n".encode()
    polled = f"GET /jobs/{job_id}?wait=30 HTTP/1.1\r\nHost: a\r\n".encode()
    rest = b"Content-Length: 1000000000\r\n\r\n"
    body = UPLOAD_MAX_SECONDS + QUEUE_SECONDS
    # What is sent first, what then comes a few times a second, the status of the answer, and the seconds to the end.
    cases = {
        "nothing sent": (b"", b"\r\n", b"408", HEADER_TIMEOUT),
        "headers": (b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"x", b"408", HEADER_TIMEOUT),
        "idle": (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", b"200", KEEP_ALIVE_SECONDS),
        "next headers": (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /", b"x", b"200", HEADER_TIMEOUT),
        "working": (polled + bearer + b"\r\n", b"\r\n", b"", WORK_TIMEOUT),
        "body": (b"POST /auth/login HTTP/1.1\r\n" + JSON + b"Content-Length: 1000\r\n\r\n", b" ", b"", body),
        "401": (STARTED + rest, b"x", b"401", LINGER_SECONDS),
        "404": (b"POST /nowhere HTTP/1.1\r\nHost: a\r\n" + rest, b"x", b"404", LINGER_SECONDS),
        "413": (b"POST /auth/login HTTP/1.1\r\n" + JSON + rest, b"x", b"413", LINGER_SECONDS),
        "unwanted": (b"GET /livez HTTP/1.1\r\nHost: a\r\n" + rest, b"x", b"200", LINGER_SECONDS),
        "chunked": (STARTED + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"401", LINGER_SECONDS),
    }
    with ThreadPoolExecutor(len(cases)) as threads:
        ended = {name: threads.submit(trickled, brisk, opening, drop) for name, (opening, drop, _, _) in cases.items()}
    for name, (_, _, status, seconds) in cases.items():
        received, lasted = ended[name].result()
        assert received[9:12] == status, f"{name}: {received!r}"
        assert lasted < seconds + LOAD, name


def test_what_follows_an_early_answer_is_discarded_and_the_answer_read(server: Server) -> None:
    """Far more than the 64 KiB that are received: the answer is not lost in a reset."""

    def send_on() -> None:
        with suppress(OSError):
            flood(connection, HEADER_TIMEOUT)

    with closing(connected(server)) as connection:
        connection.sendall(STARTED + b"Content-Length: 1000000000\r\n\r\n")
        sending = threading.Thread(target=send_on)
        sending.start()
        status, problem = answer(connection)
        sending.join()
    assert status == "HTTP/1.1 401 Unauthorized"
    assert problem["code"] == "unauthorized"


def exchanged(server: Server, *sent: bytes) -> bytes:
    """All that the server answers to these packets, until it closes or nothing more comes for a second."""
    received = b""
    with closing(connected(server)) as connection:
        for packet in sent:
            connection.sendall(packet)
            time.sleep(0.1)
        connection.settimeout(20)
        with suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
                connection.settimeout(1)
    return received


NEXT = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


def statuses(received: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def test_an_unread_body_that_is_here_keeps_the_connection(server: Server) -> None:
    received = exchanged(server, STARTED + b"Content-Length: 1\r\n\r\nx" + NEXT)
    assert statuses(received) == [401, 200]


def test_what_a_refused_expectation_did_not_send_is_not_waited_for(server: Server) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    received = exchanged(server, STARTED + expecting, NEXT)
    assert statuses(received) == [401]
    assert b"connection: close" in received


def test_blanks_after_a_value_are_not_part_of_it(server: Server) -> None:
    token = server.register().http.headers["authorization"]
    request = f"GET /auth/me HTTP/1.1\r\nHost: a\r\nAuthorization: {token} \t \r\nConnection: close\r\n\r\n"
    assert exchanged(server, request.encode()).startswith(b"HTTP/1.1 200 ")


OFFERS = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n",
    b"Upgrade: anything\r\nConnection: close, upgrade\r\n",
)


@pytest.mark.parametrize("offer", OFFERS, ids=["h2c", "websocket", "anything"])
def test_an_offer_to_upgrade_is_ignored(server: Server, offer: bytes) -> None:
    """The body is read, in one packet with the headers or in many, and never as another request."""
    user = server.register()
    content = pdf(uuid4().hex)
    announced, document_id = announce(user, content), user.upload()["id"]
    target = announced["upload_url"].split(str(server.port), 1)[1].encode()
    credentials = json.dumps({"email": user.email, "password": PASSWORD}).encode()
    work = json.dumps({"processor": "simulated", "params": {"seconds": 0.25}}).encode()
    multipart = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
        + pdf(uuid4().hex)
        + b"\r\n--x--\r\n"
    )
    requests = {
        "login": (b"POST /auth/login", "application/json", credentials, 200),
        "upload": (b"POST /documents", "multipart/form-data; boundary=x", multipart, 201),
        "direct": (b"PUT " + target, PDF_TYPE, content, 200),
        "process": (b"POST /documents/" + document_id.encode() + b"/process", "application/json", work, 202),
        "a request as a body": (b"POST /auth/login", "application/json", NEXT, 422),
    }
    bearer = f"Authorization: {user.http.headers['Authorization']}\r\n".encode()
    for name, (line, kind, body, status) in requests.items():
        head = line + b" HTTP/1.1\r\nHost: a\r\n" + offer + bearer + f"Content-Type: {kind}\r\n".encode()
        head += f"Content-Length: {len(body)}\r\n\r\n".encode()
        packets = (head, body[:9], body[9:]) if name != "direct" else (head + body,)
        assert statuses(exchanged(server, *packets)) == [status], name
    assert complete(user, announced).status_code == 200
    jobs = user.http.get("/jobs", params={"document_id": document_id}).json()["items"]
    assert [job["params"]["seconds"] for job in jobs] == [0.25]


def test_offers_in_a_row_are_answered_in_a_row(server: Server) -> None:
    chunked = b"POST /auth/refresh HTTP/1.1\r\n" + JSON + OFFERS[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    offered = NEXT.replace(b"\r\n\r\n", b"\r\n" + OFFERS[1] + b"\r\n")
    received = exchanged(server, offered + chunked + b"2\r\n{}\r\n0\r\n\r\n" + offered + NEXT)
    assert statuses(received) == [200, 422, 200, 200]


@pytest.mark.parametrize("cut", [b"", b"{"], ids=["nothing of it", "a part of it"])
def test_a_body_that_does_not_come_is_not_left_out(server: Server, cut: bytes) -> None:
    """An empty body means the defaults, but not if one was declared."""
    user = server.register()
    document_id = user.upload()["id"]
    with closing(connected(server)) as connection:
        connection.sendall(
            f"POST /documents/{document_id}/process HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Authorization: {user.http.headers['Authorization']}\r\nContent-Length: 50\r\n\r\n".encode()
            + cut
        )
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(65536)
    until(lambda: [line for line in server.logs("http.request") if line["status"] == 499])
    assert user.document(document_id)["status"] == "UPLOADED"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nhost:\r\n\r\n", 200),
    ],
    ids=["none", "two", "two with 1.0", "none with 1.0", "empty"],
)
def test_host_is_sent_once(server: Server, request_: bytes, status: int) -> None:
    assert statuses(exchanged(server, request_)) == [status]


def test_every_refusal_names_the_client(server: Server) -> None:
    exchanged(server, b"\x00\r\n\r\n")
    assert {line["client"] for line in until(lambda: server.logs("http.refused"))} == {"127.0.0.1"}
