"""HTTP habits that all routes share: strict JSON in, bytes out, and how errors are described in the OpenAPI."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from operator import attrgetter
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.errors import (
    AppError,
    DatabaseUnavailable,
    HeadersTooLarge,
    InternalError,
    InvalidToken,
    PayloadTooLarge,
    RequestTimeout,
    StorageFull,
    Unauthorized,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.problems import Problem

MAX_JSON_BYTES = 1024**2
BODY_TIMEOUT = 15.0  # seconds that a JSON body may take; uvicorn waits for ever
RETRY_AFTER = {"Retry-After": "1"}  # seconds


class StrictRequest(Request):
    """Reads a bounded body, and JSON as RFC 8259 has it: no NaN, no infinity, no lone surrogates, bounded depth."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._refuse_beyond(declared_length(self))
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    self._body = await self._read()
            except TimeoutError:
                raise HTTPException(408) from None
        return self._body

    async def _read(self) -> bytes:
        chunks, size = [], 0
        async for chunk in self.stream():
            chunks.append(chunk)
            size += len(chunk)
            self._refuse_beyond(size)
        return b"".join(chunks)

    def _refuse_beyond(self, size: int) -> None:
        if size > MAX_JSON_BYTES:
            raise HTTPException(413)  # FastAPI lets only its own kind of error out of `body`

    async def json(self) -> Any:
        # orjson's error is a json.JSONDecodeError: FastAPI makes a 422 of it.
        return orjson.loads(await self.body())


class Route(APIRoute):
    """A route whose handler sees StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        takes_json = self.body_field is not None

        async def strict(request: Request) -> Response:
            if takes_json and _has_body(request) and media_type(request) != "application/json":
                raise UnsupportedMediaType
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def declared_length(request: Request) -> int:
    """Content-Length; 0 without one. A number too long to be true is as good as infinite."""
    declared = request.headers.get("content-length", "0")
    return int(declared[:18]) if declared.isdecimal() else 0


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or declared_length(request) > 0


def json_response(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content.model_dump_json(), status, headers, "application/json")


def raises(*errors: type[AppError], authenticated: bool = True, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route: the errors it names, those of its kind, and those of every route."""
    found: list[type[AppError]] = [*errors, HeadersTooLarge, InternalError]
    if authenticated:
        found += [Unauthorized, InvalidToken, DatabaseUnavailable]
    if body:
        found += [ValidationFailed, RequestTimeout, PayloadTooLarge, UnsupportedMediaType]
        found += [DatabaseUnavailable, StorageFull]  # what is sent is written down
    responses: dict[int | str, dict[str, Any]] = {}
    for error in sorted(found, key=attrgetter("status")):
        described = responses.setdefault(error.status, _described(error))
        codes = described["content"]["application/problem+json"]["examples"]
        codes[error.code] = {"value": _example(error)}
    return responses


def _described(error: type[AppError]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": HTTPStatus(error.status).phrase,
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in error.headers.items()},
        "content": {"application/problem+json": {"schema": schema, "examples": {}}},
    }


def _example(error: type[AppError]) -> dict[str, Any]:
    return Problem(
        type=f"/problems/{error.code}",
        title=error.title,
        status=error.status,
        detail=error.title,
        instance="urn:request:01939f3e-5c00-7000-8000-000000000001",
        code=error.code,
        request_id="01939f3e-5c00-7000-8000-000000000001",
    ).model_dump(exclude_none=True)


def accepts(**headers: str) -> dict[str, Any]:
    """The OpenAPI `parameters` for request headers that a route reads by itself, each with its description."""
    return {
        "parameters": [
            {"in": "header", "name": name.replace("_", "-"), "description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        ]
    }


def links(*operations: str, **parameters: str) -> dict[str, Any]:
    """The OpenAPI `links` of an answer: operations to go on with, and the runtime expressions for their parameters."""
    return {operation: {"operationId": operation, "parameters": parameters} for operation in operations}


def header(description: str, example: str) -> dict[str, Any]:
    """One response header in the OpenAPI."""
    return {"description": description, "schema": {"type": "string"}, "example": example}
