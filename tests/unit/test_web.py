"""Dependencies that `Route` refuses when the application is built, requests that are cut off, and lost bodies."""

import asyncio
from collections.abc import Iterator
from json import JSONDecodeError
from types import SimpleNamespace
from typing import Annotated, Any

import orjson
import pytest
from fastapi import APIRouter, Depends, Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import BadRequest
from app.web.body import StrictRequest
from app.web.middleware import RequestMiddleware
from app.web.route import Route


def guard() -> None:
    pass


async def later() -> None:
    pass


def opened() -> Iterator[None]:
    yield


async def answer() -> Response:
    return Response()


def test_a_dependency_without_an_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="no argument takes its value"):
        APIRouter(route_class=Route, dependencies=[Depends(guard)]).get("/")(answer)


@pytest.mark.parametrize("call", [later, opened])
def test_what_is_not_a_synchronous_function_is_refused(call: Any) -> None:
    depending = Annotated[None, Depends(call)]

    async def answer(value: depending) -> Response:
        return Response(value)

    with pytest.raises(TypeError, match="not a synchronous function"):
        APIRouter(route_class=Route).get("/")(answer)


class Hanging:
    """An application that never ends by itself, and how it is asked."""

    def __init__(self, *, draining: bool, started: bool = False) -> None:
        self.sent: list[Message] = []
        self._started = started
        self.state = SimpleNamespace(health=SimpleNamespace(draining=draining))

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        if self._started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def cut_off(self) -> None:
        """Begin a request, and cancel it as uvicorn does at the end of a shutdown."""
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/",
            "headers": [(b"host", b"a")],
            "client": None,
            "app": self,
        }
        task = asyncio.create_task(RequestMiddleware(self)(scope, self._receive, self._send))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    async def _receive(self) -> Message:
        return {"type": "http.disconnect"}


async def test_a_request_that_a_shutdown_cuts_off_is_answered_with_a_problem() -> None:
    app = Hanging(draining=True)
    await app.cut_off()
    start, body = app.sent
    assert start["status"] == 503
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert orjson.loads(body["body"])["code"] == "shutting-down"


async def test_an_answer_that_a_shutdown_cuts_off_stays_incomplete() -> None:
    app = Hanging(draining=True, started=True)
    await app.cut_off()
    assert [message["type"] for message in app.sent] == ["http.response.start"]


async def test_any_other_cancellation_is_none_of_the_middleware_s() -> None:
    app = Hanging(draining=False)
    with pytest.raises(asyncio.CancelledError):
        await app.cut_off()
    assert app.sent == []


def request_of(body: bytes, declared: int) -> StrictRequest:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "headers": [(b"content-length", str(declared).encode())]}
    return StrictRequest(scope, receive, send, max_body=10_000_000)


@pytest.mark.parametrize("sent", [b"", b"{}"])
async def test_a_body_that_was_lost_on_the_way_is_not_an_empty_one(sent: bytes) -> None:
    with pytest.raises(BadRequest):
        await request_of(sent, 5).body()


LARGE = {"rows": [{"id": number, "at": [0.5, -1e3], "of": None} for number in range(50_000)], "text": 'é😀 \\ " ' * 10}


PADDED = pytest.mark.parametrize("padding", ["", " " * 100_000], ids=["small", "large"])


async def test_others_get_their_turn_while_a_large_body_is_decoded() -> None:
    turns, body = 0, orjson.dumps(LARGE)
    decoding = asyncio.create_task(request_of(body, len(body)).json())
    while not decoding.done():
        turns += 1
        await asyncio.sleep(0)
    assert await decoding == LARGE
    assert turns > 10


@PADDED
@pytest.mark.parametrize("number", [2**64 - 1, 2**64, -(2**63), -(2**64), 0])
async def test_numbers_are_the_same_however_long_the_body(number: int, padding: str) -> None:
    """Those that are no integers of 64 bits are floating-point numbers."""
    body = f"{number}{padding}".encode()
    found = await request_of(body, len(body)).json()
    assert (found, type(found)) == (number, int if -(2**63) <= number < 2**64 else float)


@PADDED
@pytest.mark.parametrize(
    "text",
    [
        *(
            "[1,]",
            "NaN",
            "[Infinity]",
            "1e999",
            "9" * 400,
            "\ufeff1",
            "[1] 2",
            "01",
            "",
            "{1: 2}",
            "'a'",
            '"\t"',
            "[" * 5000,
        ),
        '{"\\ud800": 1}',
    ],
)
async def test_what_is_no_json(text: str, padding: str) -> None:
    body = (text + padding).encode()
    with pytest.raises(JSONDecodeError):
        await request_of(body, len(body)).json()
    with pytest.raises(JSONDecodeError):
        await request_of(b'"\xff"' + body, len(body) + 3).json()
