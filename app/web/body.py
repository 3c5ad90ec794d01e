"""Bodies: bounded and strict JSON in, a model as JSON out."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from app.errors import BadRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from app.limiter import Threads
from app.web.decoding import decoded

_MAX_FOUND = 1000  # errors in a body that are told apart; a body of 64 KiB can have 8,000, which takes 25 ms
_SHORT = 64 * 1024  # bytes that are decoded at once: to others, that is a wait of a millisecond
BODY_TIMEOUT = 15.0  # seconds for a whole JSON body; uvicorn has no such timeout
RETRY_AFTER = {"Retry-After": "1"}  # seconds

_threads = Threads(1, "bodies")


class StrictRequest(Request):
    """A request with a body of at most `max_body` bytes, whose JSON follows RFC 8259: no NaN and no infinity. Lone
    surrogates are refused as well, but for those in the texts of long bodies."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        super().__init__(scope, receive, send)
        self._max_body = max_body
        self._whole: bytes | None = None

    async def body(self) -> bytes:
        """The whole body.

        Raises PayloadTooLarge, RequestTimeout after BODY_TIMEOUT, and BadRequest for less than was declared: a body
        that was lost on the way must not look like one that was left out.
        """
        if self._whole is None:
            self._refuse_beyond(declared_length(self))
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    self._whole = await self._read()
            except TimeoutError:
                raise RequestTimeout from None
        return self._whole

    async def _read(self) -> bytes:
        chunks, size = [], 0
        async for chunk in self.stream():
            chunks.append(chunk)
            size += len(chunk)
            self._refuse_beyond(size)
        if size < declared_length(self):
            raise BadRequest("The body is shorter than its Content-Length.")
        return b"".join(chunks)

    def _refuse_beyond(self, size: int) -> None:
        if size > self._max_body:
            raise PayloadTooLarge(f"The body may have at most {self._max_body} bytes.")

    async def json(self) -> Any:
        """The decoded body. Raises JSONDecodeError, and what `body` raises."""
        body = await self.body()
        return orjson.loads(body) if len(body) <= _SHORT else await _threads.run(decoded, body)


def media_type(request: Request) -> str:
    """The media type of the body in lower case, without parameters; empty if none is declared."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def declared_length(request: Request) -> int:
    """Content-Length in bytes; 0 without one."""
    declared = request.headers.get("content-length", "0")
    # int() refuses thousands of digits; the first 18 exceed every limit.
    return int(declared[:18]) if declared.isdecimal() else 0


def has_body(request: Request) -> bool:
    """Whether a body is declared."""
    return "transfer-encoding" in request.headers or declared_length(request) > 0


def refuse_encoded(request: Request) -> None:
    """Raise UnsupportedMediaType for a body in a content coding, such as gzip: none is decoded (RFC 9110 §8.4)."""
    codings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    if any(each.strip() not in ("", "identity") for each in codings) and has_body(request):
        raise UnsupportedMediaType(
            "Bodies must be sent without a Content-Encoding: none is decoded.", headers={"Accept-Encoding": "identity"}
        )


def errors_in(error: ValidationError, *prefix: str) -> list[Any]:
    """Pydantic's errors in a model that is at `prefix`, without the input. Too many to be told apart are one."""
    if error.error_count() > _MAX_FOUND:
        return [{"type": "too_many_errors", "loc": prefix, "msg": f"More than {_MAX_FOUND} errors"}]
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [{**each, "loc": (*prefix, *each["loc"])} for each in found]


def is_head(request: Request) -> bool:
    """Whether the client wants the headers of the answer only: RequestMiddleware has made a GET of its HEAD."""
    return "head" in request.scope


def json_response(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON."""
    return Response(content.model_dump_json(), status, headers, "application/json")
