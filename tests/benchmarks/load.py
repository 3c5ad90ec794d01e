"""The load: closed loops of prebuilt requests over raw sockets.

Nothing is built or parsed per request but the status line and the length of the answer, so that a core of it outruns a
server on another core; `Load.client` tells how busy it was.
"""

import json
import math
import os
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection as PipeEnd
from typing import Any

CHUNK = 1024 * 1024
FAILED = 0  # the status of a request that got no answer
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Load:
    """What came of it. Times are in seconds; `client` is the share of its core that the client used."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    seconds: float = 0
    client: float = 0

    def add(self, status: int, body: bytes, latency: float, *, keep: bool):
        self.statuses[status] += 1
        self.latencies.append(latency)
        if keep:
            self.answers.append(body)

    @property
    def rate(self) -> float:
        """Successes a second."""
        return self.successes / self.seconds

    @property
    def successes(self) -> int:
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)

    @property
    def failures(self) -> int:
        return self.statuses.total() - self.successes

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


class _Line:
    """One connection, with at most one request under way."""

    def __init__(self, port: int, epoll: select.epoll):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(0)
        self._epoll = epoll
        self._waits_to_send = False
        self.number = self._socket.fileno()
        epoll.register(self.number, select.EPOLLIN)

    def close(self):
        self._epoll.unregister(self.number)
        self._socket.close()

    def begin(self, request: bytes, at: float):
        self.began, self._received, self._unsent = at, b"", memoryview(request)
        self.send()

    def send(self):
        """As much as the kernel takes. That the connection is broken is found out by reading."""
        with suppress(OSError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent[:CHUNK]) :]
        if self._waits_to_send != bool(self._unsent):
            self._waits_to_send = bool(self._unsent)
            self._epoll.modify(self.number, select.EPOLLIN | (select.EPOLLOUT if self._waits_to_send else 0))

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body, once they are whole."""
        try:
            data = self._socket.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            return FAILED, b""
        self._received += data
        head, there, body = self._received.partition(b"\r\n\r\n")
        if not there:
            return None
        length = _LENGTH.search(head)
        if len(body) < (int(length[1]) if length else 0):
            return None
        return (FAILED if self._unsent else int(head[9:12])), body


def drive(
    port: int, requests: Iterable[bytes], connections: int, seconds: float = math.inf, *, keep: bool = False
) -> Load:
    """Send the requests over so many connections, one at a time on each, until none is left or time is up.

    What is under way then is waited for. `keep` keeps the answers' bodies. The first latency of each connection counts
    from the moment that all of them are open.
    """
    load, left = Load(), iter(requests)
    with select.epoll() as epoll:
        lines = {line.number: line for line in [_Line(port, epoll) for _ in range(connections)]}
        began, used = time.perf_counter(), time.process_time()

        def go_on(line: _Line, *, at: float | None = None):
            request = next(left, None) if time.perf_counter() - began < seconds else None
            if request is None:
                del lines[line.number]
                line.close()
            else:
                line.begin(request, at or time.perf_counter())

        for line in list(lines.values()):
            go_on(line, at=began)
        while lines:
            for number, events in epoll.poll():
                line = lines[number]
                if events & select.EPOLLOUT:
                    line.send()
                answer = line.receive() if events & ~select.EPOLLOUT else None
                if answer is None:
                    continue
                load.add(*answer, time.perf_counter() - line.began, keep=keep)
                if answer[0] == FAILED:
                    del lines[number]
                    line.close()
                    line = _Line(port, epoll)
                    lines[line.number] = line
                go_on(line)
        load.seconds = time.perf_counter() - began
        load.client = (time.process_time() - used) / load.seconds
    return load


@contextmanager
def pings(port: int, every: float = 0.005) -> Iterator[Load]:
    """Ask for /livez again and again meanwhile, from a process of its own. The latencies are there afterwards."""
    load = Load()
    ours, theirs = Pipe()
    process = Process(target=_ping, args=(port, every, theirs))
    process.start()
    yield load
    ours.send("stop")
    load.latencies = ours.recv()
    process.join()


def _ping(port: int, every: float, boss: PipeEnd):
    """Those that came due while one was under way count as answered with it: a server that stands still must not hide
    what it kept from being sent."""
    latencies = []
    with select.epoll() as epoll:
        line = _Line(port, epoll)
        due = time.perf_counter()
        while not boss.poll(max(due - time.perf_counter(), 0)):
            line.begin(get("/livez"), due)
            while (answer := line.receive() if epoll.poll() else None) is None:
                pass
            assert answer[0] == HTTPStatus.OK, answer
            answered = time.perf_counter()
            while due <= answered:
                latencies.append(answered - due)
                due += every
        line.close()
    boss.send(latencies)


def get(path: str, token: str = "") -> bytes:
    return _request("GET", path, token)


def post(path: str, token: str = "", **body: Any) -> bytes:
    return _request("POST", path, token, json.dumps(body).encode())


def patch(path: str, token: str, **body: Any) -> bytes:
    return _request("PATCH", path, token, json.dumps(body).encode())


def with_key(request: bytes, key: str) -> bytes:
    """The request with an Idempotency-Key."""
    return request.replace(b"\r\n", f"\r\nIdempotency-Key: {key}\r\n".encode(), 1)


def upload(size: int, token: str) -> bytes:
    """POST /documents with a PDF of so many bytes, which compress as little as those of real ones."""
    start, end = b"%PDF-1.7\n", b"\nstartxref\n9\n%%EOF\n"
    block = os.urandom(CHUNK)
    content = (start + block * (size // len(block) + 1))[: size - len(end)] + end
    disposition = b'Content-Disposition: form-data; name="file"; filename="report.pdf"'
    form = b"--frontier\r\n%b\r\nContent-Type: application/pdf\r\n\r\n%b\r\n--frontier--\r\n" % (disposition, content)
    return _request("POST", "/documents", token, form, "multipart/form-data; boundary=frontier")


def _request(method: str, path: str, token: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}"]
    head += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*head, "", ""]).encode() + body
