"""The parts of a route's OpenAPI that FastAPI cannot derive: its errors, headers and links."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from app import errors
from app.web.problems import EXAMPLE_REQUEST_ID, MEDIA_TYPE, Problem


def raises(
    *own: type[errors.AppError],
    authenticated: bool = True,
    body: bool = False,
    keyed: bool = False,
    limited: bool = True,
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` for a route's own errors, and for those that every route of its kind can answer with.

    `body`: it takes JSON, and writes. `keyed`: it takes an Idempotency-Key. `limited`: its requests are counted.
    """
    found: list[type[errors.AppError]] = [*own, errors.ValidationFailed, errors.HeadersTooLarge]
    found += [errors.InternalError, errors.ShuttingDown]
    found += [errors.RateLimited] if limited else []
    if authenticated:
        found += [errors.Unauthorized, errors.InvalidToken, errors.ApiKeyExpired, errors.InsufficientScope]
        found += [errors.DatabaseUnavailable]
    if body:
        found += [errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType]
        found += [errors.DatabaseUnavailable, errors.TooBusy, errors.StorageFull]
    if keyed:
        found += [errors.MalformedIdempotencyKey, errors.IdempotencyKeyReused]
    responses: dict[int | str, dict[str, Any]] = {}
    for error in sorted(found, key=attrgetter("status")):
        response = responses.setdefault(error.status, _response())
        for name, value in error.headers.items():
            response["headers"].setdefault(name, {"schema": {"type": "string"}, "example": value})
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[error.code] = {
            "value": Problem.of(error(), EXAMPLE_REQUEST_ID).model_dump(exclude_none=True, by_alias=True)
        }
        response["description"] = _list_of(examples)
    return responses


def _list_of(codes: Iterable[str]) -> str:
    """Links to their pages, from /docs."""
    return ", ".join(f"[{code}](problems/{code})" for code in sorted(codes))


def _response() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "headers": {},
        "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}},
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
