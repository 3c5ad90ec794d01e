"""What FastAPI cannot work out by itself of a route's OpenAPI: its errors, headers and links."""

from http import HTTPStatus
from operator import attrgetter
from typing import Any

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
from app.web.problems import Problem

_REQUEST_ID = "01939f3e-5c00-7000-8000-000000000001"


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
        codes[error.code] = {"value": Problem.of(error(), _REQUEST_ID).model_dump(exclude_none=True)}
    return responses


def _described(error: type[AppError]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": HTTPStatus(error.status).phrase,
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in error.headers.items()},
        "content": {"application/problem+json": {"schema": schema, "examples": {}}},
    }


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
