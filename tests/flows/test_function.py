"""The function of deploy/aws, called as Lambda calls it: messages that come again, and jobs that it has no time for."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from types import ModuleType
from typing import Any
from uuid import uuid4
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from tests.support.amazon import FUNCTION, PROCESSOR
from tests.support.elsewhere import Insistent, Worker, described
from tests.support.factories import pdf
from tests.support.server import Server, free_port
from tests.support.user import User

DONE: dict[str, Any] = {"batchItemFailures": []}
AGAIN = {"batchItemFailures": [{"itemIdentifier": "m"}]}


@dataclass
class Context:
    """Of a call that has so many seconds until the function gives its job back."""

    seconds: float

    def get_remaining_time_in_millis(self) -> float:
        return (self.seconds + 10) * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("function")
    stated = {PROCESSOR: json.loads((FUNCTION / "processor.json").read_text())}
    with Server(folder / "var", {"REMOTE_PROCESSORS": str(described(folder, stated))}) as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    wanted = {"name": "function", "scopes": ["worker"]}
    made: str = server.operator().http.post("/api-keys", json=wanted).json()["key"]
    return made


@pytest.fixture
def function(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("API_URL", server.url)
    monkeypatch.setenv("API_KEY", key)
    monkeypatch.syspath_prepend(FUNCTION)
    yield importlib.import_module("handler")
    for name in ("handler", "work"):
        del sys.modules[name]


@dataclass
class Busy:
    """A service that puts calls off before it answers them that there is no such job. `at`: when they came."""

    retry_after: int
    times: int
    at: list[float] = field(default_factory=list)

    def __call__(self, _: dict[str, Any], start_response: Any) -> list[bytes]:
        self.at.append(time.monotonic())
        if len(self.at) > self.times:
            start_response("404 Not Found", [])
        else:
            start_response("503 Service Unavailable", [("Retry-After", str(self.retry_after))])
        return [b""]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL of an app that is served meanwhile."""
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as served:
        thread = Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def called(function: ModuleType, body: Any, seconds: float = 30) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return function.handler({"Records": [{"messageId": "m", "body": text}]}, Context(seconds))


def started(user: User, content: bytes | None = None) -> dict[str, str]:
    """A new job, as a message names it."""
    return {"job_id": user.start(user.upload(content)["id"], processor=PROCESSOR)["id"]}


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


def test_a_job_is_done_once(function: ModuleType, user: User) -> None:
    """A page becomes a document, if there is no file map."""
    hint = started(user, pdf("a", 3))
    assert [called(function, hint), called(function, hint)] == [DONE, DONE]
    job = user.job(hint["job_id"])
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
    children = user.http.get(f"/documents/{job['document_id']}/children").json()["items"]
    assert [each["filename"] for each in children] == ["report_1.pdf", "report_2.pdf", "report_3.pdf"]


def test_work_that_cannot_be_done(function: ModuleType, user: User) -> None:
    document_id = user.upload(pdf("a", 2))["id"]
    job = user.start(document_id, processor=PROCESSOR, params={"file_map": [{"pages": [0]}, {"pages": [2]}]})
    assert called(function, {"job_id": job["id"]}) == DONE
    job = user.job(job["id"])
    assert (job["state"], job["error"]["code"]) == ("FAILED", "page-out-of-range")


def test_messages_of_no_more_use(function: ModuleType, server: Server, user: User, key: str) -> None:
    assert called(function, {"job_id": str(uuid4())}) == DONE  # there is no such job
    hint = started(user)
    assert Worker(Insistent(server.url), key).claim_job(hint["job_id"]).status_code == 200
    assert called(function, hint) == DONE  # it is somebody else's
    assert user.http.post(f"/jobs/{hint['job_id']}/cancel").is_success
    assert called(function, hint) == DONE


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"job_id": 1}', '{"job_id": "../1"}'])
def test_what_is_no_hint_ends_among_the_dead_letters(function: ModuleType, body: str) -> None:
    assert called(function, body) == AGAIN


def test_a_job_that_is_not_due_comes_again(function: ModuleType, server: Server, user: User, key: str) -> None:
    hint = started(user)
    worker = Worker(Insistent(server.url), key)
    assert worker.claim_job(hint["job_id"]).status_code == 200
    assert worker.fail(transient=True, retry_after=60).json() == {"state": "QUEUED"}
    assert called(function, hint) == AGAIN


def test_a_service_that_is_away(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    assert called(function, {"job_id": str(uuid4())}, seconds=1.5) == AGAIN
    assert 1 <= time.monotonic() - began < 5


def test_the_service_says_when_to_ask_again(function: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(busy := Busy(retry_after=2, times=1)) as url:
        monkeypatch.setenv("API_URL", url)
        assert called(function, {"job_id": str(uuid4())}) == DONE
        first, again = busy.at
        assert again - first >= 2
    with serving(busy := Busy(retry_after=60, times=1)) as url:  # which is later than there is time
        monkeypatch.setenv("API_URL", url)
        assert called(function, {"job_id": str(uuid4())}) == AGAIN
        assert len(busy.at) == 1


def test_the_message_does_not_say_who_gets_the_key(function: ModuleType, user: User) -> None:
    with serving(elsewhere := Busy(retry_after=1, times=0)) as url:
        hint = started(user) | {"api": url}
        assert called(function, hint) == DONE
    assert elsewhere.at == []
    assert user.job(hint["job_id"])["state"] == "SUCCEEDED"


def test_a_key_that_was_replaced(function: ModuleType, user: User, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "dla_other")
    hint = started(user)
    assert called(function, hint) == AGAIN
    monkeypatch.setenv("API_KEY", key)  # it is read anew
    assert called(function, hint) == DONE
    assert user.job(hint["job_id"])["state"] == "SUCCEEDED"


def test_a_job_for_which_there_is_no_time(function: ModuleType, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given back before the function would be killed, and published by another attempt only."""

    def slow(*given: Any) -> Any:
        time.sleep(3)
        return work(*given)

    work = function.work
    monkeypatch.setattr(function, "work", slow)
    hint = started(user)
    assert called(function, hint, seconds=1.5) == DONE  # the service tells of it again
    job = user.job(hint["job_id"])
    assert (job["state"], job["error"]["code"]) == ("QUEUED", "out-of-time")
    assert user.http.get(f"/documents/{job['document_id']}/children").json()["items"] == []


def test_an_input_that_is_not_what_was_stored(
    function: ModuleType, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = function.call
    monkeypatch.setattr(
        function, "call", lambda method, *given, **more: _cut(call(method, *given, **more), cut=method == "GET")
    )
    hint = started(user)
    assert called(function, hint) == DONE
    job = user.job(hint["job_id"])
    assert (job["state"], job["error"]["code"]) == ("QUEUED", "worker-error")


def test_a_process_with_other_settings_answers(
    function: ModuleType, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know the processor. Another attempt may succeed."""
    call = function.call

    def unknown(method: str, url: str, *given: Any, **more: Any) -> Any:
        return (404, b"{}") if url.endswith("/complete") else call(method, url, *given, **more)

    monkeypatch.setattr(function, "call", unknown)
    hint = started(user)
    assert called(function, hint) == DONE
    job = user.job(hint["job_id"])
    assert (job["state"], job["error"]["code"]) == ("QUEUED", "worker-error")


def _cut(answer: tuple[int, bytes], *, cut: bool) -> tuple[int, bytes]:
    return (answer[0], answer[1][:-1]) if cut else answer
