"""Bodies: bounded and strict JSON in, a model as JSON out."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel

from app.errors import PayloadTooLarge, RequestTimeout

MAX_JSON_BYTES = 1024**2
BODY_TIMEOUT = 15.0  # seconds for a whole JSON body; uvicorn has no such timeout
RETRY_AFTER = {"Retry-After": "1"}  # seconds


class StrictRequest(Request):
    """A request with a bounded body, whose JSON follows RFC 8259: no NaN, infinity or lone surrogates."""

    _whole: bytes | None = None

    async def body(self) -> bytes:
        """The body of up to MAX_JSON_BYTES. Raises PayloadTooLarge, and RequestTimeout after BODY_TIMEOUT."""
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
        return b"".join(chunks)

    def _refuse_beyond(self, size: int) -> None:
        if size > MAX_JSON_BYTES:
            raise PayloadTooLarge

    async def json(self) -> Any:
        """The decoded body. Raises orjson.JSONDecodeError, and what `body` raises."""
        return orjson.loads(await self.body())


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


def json_response(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON."""
    return Response(content.model_dump_json(), status, headers, "application/json")
