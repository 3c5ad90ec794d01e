"""The parts of a route's OpenAPI that FastAPI cannot derive: its errors, headers and links."""

from http import HTTPStatus
from operator import attrgetter
from typing import Any

from app import errors
from app.web.problems import Problem

_REQUEST_ID = "01939f3e-5c00-7000-8000-000000000001"


def raises(
    *own: type[errors.AppError], authenticated: bool = True, body: bool = False, keyed: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` for a route's own errors, and for those that every route of its kind can answer with.

    `body`: it takes JSON, and writes. `keyed`: it takes an Idempotency-Key.
    """
    found: list[type[errors.AppError]] = [*own, errors.HeadersTooLarge, errors.InternalError]
    if authenticated:
        found += [errors.Unauthorized, errors.InvalidToken, errors.InsufficientScope, errors.DatabaseUnavailable]
    if body:
        found += [errors.ValidationFailed, errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType]
        found += [errors.DatabaseUnavailable, errors.StorageFull]
    if keyed:
        found += [errors.MalformedIdempotencyKey, errors.IdempotencyKeyReused]
    responses: dict[int | str, dict[str, Any]] = {}
    for error in sorted(found, key=attrgetter("status")):
        response = responses.setdefault(error.status, _response(error.status))
        for name, value in error.headers.items():
            response["headers"].setdefault(name, {"schema": {"type": "string"}, "example": value})
        examples = response["content"]["application/problem+json"]["examples"]
        examples[error.code] = {"value": Problem.of(error(), _REQUEST_ID).model_dump(exclude_none=True)}
    return responses


def _response(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": {},
        "content": {"application/problem+json": {"schema": schema, "examples": {}}},
    }


def accepts(**headers: str) -> dict[str, Any]:
    """The OpenAPI `parameters` for request headers that a handler reads itself: a description for each name."""
    return {
        "parameters": [
            {"in": "header", "name": name.replace("_", "-"), "description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        ]
    }


def links(*operations: str, **parameters: str) -> dict[str, Any]:
    """The OpenAPI `links` of a response: operations that may follow, and runtime expressions for their parameters."""
    return {operation: {"operationId": operation, "parameters": parameters} for operation in operations}


def header(description: str, example: str) -> dict[str, Any]:
    """One response header in the OpenAPI."""
    return {"description": description, "schema": {"type": "string"}, "example": example}
