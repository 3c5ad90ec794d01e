"""Simulated users, each a generator that yields the requests of its life and is sent their answers.

One thread leads all of them, over the raw sockets of `load`: as fast as they go, or at a given rate. At a given rate a
request counts from when it was due, so a server that stalls does not hide those which it kept from being sent.
"""

import json
import select
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.benchmarks import load
from tests.benchmarks.load import _Line
from tests.support.user import PASSWORD


class Step(NamedTuple):
    """A request, the kind that it is counted as, and the statuses that are no error."""

    kind: str
    request: bytes
    fine: tuple[int, ...] = (200,)


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Life = Generator[Step, Answer, None]


def life(number: int, size: int = 20_000) -> Life:
    """Uploads, has processed, looks at it in every way; deletes one in three; now and then refreshes or logs in."""
    account = {"email": f"user{number}@example.com", "password": PASSWORD}
    yield Step("register", load.post("/auth/register", **account), (201, 409))
    rounds = number  # not all log in at once
    while True:
        tokens = (yield Step("login", load.post("/auth/login", **account))).json
        for _ in range(4):
            for _ in range(10 + rounds % 10):
                yield from document(tokens["access_token"], size, delete=rounds % 3 == 0)
                rounds += 1
            request = load.post("/auth/refresh", refresh_token=tokens["refresh_token"])
            tokens = (yield Step("refresh", request)).json


def document(token: str, size: int, *, delete: bool) -> Life:
    id_ = (yield Step("upload", load.upload(size, token), (201,))).json["id"]
    request = load.post(f"/documents/{id_}/process", token, params={"seconds": 0})
    job = (yield Step("process", request, (202,))).json["job"]["id"]
    while (yield Step("poll", load.get(f"/jobs/{job}?wait=5", token))).json["state"] in {"QUEUED", "RUNNING"}:
        pass
    yield Step("get", load.get(f"/documents/{id_}", token))
    yield Step("result", load.get(f"/documents/{id_}/result", token))
    yield Step("list", load.get("/documents?limit=50", token))
    yield Step("download", load.get(f"/documents/{id_}/content", token))
    yield Step("timeline", load.get(f"/documents/{id_}/timeline", token))
    if delete:
        yield Step("delete", load.get(f"/documents/{id_}", token).replace(b"GET", b"DELETE", 1), (204,))


@dataclass
class Traffic:
    """What came of it: latencies in seconds by kind, and what was answered that should not have been."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    seconds: float = 0

    @property
    def rate(self) -> float:
        return sum(map(len, self.latencies.values())) / self.seconds


class _Person:
    def __init__(self, life: Life, line: _Line):
        self.life, self.line = life, line
        self.step = next(life)
        self.asks = False


class Crowd:
    """People with a connection each."""

    def __init__(self, port: int, count: int):
        self._epoll = select.epoll()
        self._port = port
        people = [_Person(life(number), _Line(port, self._epoll)) for number in range(count)]
        self._people = {person.line.number: person for person in people}
        self._ready = deque(people)

    def live(self, seconds: float, rate: float | None = None, tick: Callable[[], None] = lambda: None) -> Traffic:
        """For so long, at `rate` requests a second or as fast as they are answered. `tick` is called every second."""
        traffic, began = Traffic(), time.perf_counter()
        due, next_tick = began, began + 1
        while (now := time.perf_counter()) < began + seconds or len(self._ready) < len(self._people):
            while self._ready and due <= now < began + seconds:
                person = self._ready.popleft()
                person.asks = True
                person.line.begin(person.step.request, due if rate else now)
                due += 1 / rate if rate else 0
            if now > next_tick:
                tick()
                next_tick += 1
            wait = max(due - now, 0) if rate and self._ready else 0.05
            for number, events in self._epoll.poll(wait):
                self._hear(self._people[number], events, traffic)
        traffic.seconds = time.perf_counter() - began
        return traffic

    def _hear(self, person: _Person, events: int, traffic: Traffic):
        if not person.asks:  # the server has closed an idle connection
            self._reconnect(person)
            return
        if events & select.EPOLLOUT:
            person.line.send()
        answer = person.line.receive() if events & ~select.EPOLLOUT else None
        if answer is None:
            return
        traffic.latencies[person.step.kind].append(time.perf_counter() - person.line.began)
        status, body = answer
        person.asks = False
        if status in person.step.fine:
            person.step = person.life.send(Answer(status, body))
        else:
            traffic.errors.append(f"{person.step.kind}: {status} {body[:300]!r}")
            self._reconnect(person)  # and does the same again
        self._ready.append(person)

    def _reconnect(self, person: _Person):
        del self._people[person.line.number]
        person.line.close()
        person.line = _Line(self._port, self._epoll)
        self._people[person.line.number] = person
