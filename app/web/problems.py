"""Errors as application/problem+json (RFC 9457), and an HTML page for each problem type."""

import re
from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from typing import Any, Self

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException

from app.errors import AppError, BadRequest, InternalError, MethodNotAllowed, NotFound, ValidationFailed
from app.telemetry import context
from app.web import pages
from app.web.body import errors_in
from app.web.fields import LINE, PROSE
from app.web.route import Route

router = APIRouter(include_in_schema=False, route_class=Route)

MEDIA_TYPE = "application/problem+json"
EXAMPLE_REQUEST_ID = "01939f3e-5c00-7000-8000-000000000001"
_IN_WORDS = {
    f"String should match pattern '{pattern}'": "Input should have no control characters" for pattern in (LINE, PROSE)
}
_MAX_ERRORS = 20  # in one answer: a body of 1 MB can have 100,000 unknown fields


_BY_STATUS: dict[int, type[AppError]] = {error.status: error for error in AppError.__subclasses__()}


class FieldError(BaseModel):
    """One thing that is wrong with a request, and where."""

    detail: str
    pointer: str = Field(
        description="JSON Pointer into the body, or `/query/<name>`, `/header/<name>`, `/path/<name>`."
    )


class Problem(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(examples=["/problems/not-found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="This occurrence.")
    code: str = Field(examples=["not-found"])
    request_id: str
    errors: list[FieldError] | SkipJsonSchema[None] = Field(
        None, max_length=_MAX_ERRORS, description="With status 422: what is wrong, and where."
    )
    error: dict[str, str] | SkipJsonSchema[None] = Field(
        None, description="With processing-failed, picture-failed and upload-rejected: the reason."
    )
    violated_policies: list[str] | SkipJsonSchema[None] = Field(
        None,
        serialization_alias="violated-policies",
        description="With rate-limited: the policies of the `RateLimit-Policy` field.",
    )
    checks: dict[str, str] | SkipJsonSchema[None] = Field(
        None, description="With not-ready: `ok` or what is wrong, by check."
    )
    alarms: dict[str, str] | SkipJsonSchema[None] = Field(
        None, description="With not-ready: what else an operator should look into."
    )

    @classmethod
    def of(cls, error: AppError, request_id: str) -> Self:
        """Describe one occurrence of an error. Members of `error.extra` that are not fields here are left out."""
        return cls(
            type=f"/problems/{error.code}",
            title=error.title,
            status=error.status,
            detail=error.detail,
            instance=f"urn:request:{request_id}",
            code=error.code,
            request_id=request_id,
            **error.extra,
        )


def response(error: AppError, request_id: str | None = None) -> Response:
    """Render an error. Without a request id, the error belongs to the current request."""
    problem = Problem.of(error, request_id or context.request_id.get() or "")
    body = problem.model_dump_json(exclude_none=True, by_alias=True)
    return Response(body, error.status, error.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error, the framework's own included, with a problem."""
    app.include_router(router)

    @app.exception_handler(AppError)
    async def ours(_: Request, error: AppError) -> Response:
        return response(error)

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == MethodNotAllowed.status:
            return response(MethodNotAllowed(headers=_allow(request)))
        known = _BY_STATUS.get(error.status_code, BadRequest if error.status_code < 500 else InternalError)
        return response(known(headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return response(validation_failed(error))


def validation_failed(error: RequestValidationError) -> ValidationFailed:
    """The framework's error as ours."""
    return ValidationFailed(errors=_field_errors(error.errors()))


def _allow(request: Request) -> dict[str, str]:
    """All methods of the path (RFC 9110 §10.2.1); the framework names only those of the first matching route.

    What the API's description does not have are pages and files.
    """
    template = getattr(request.scope.get("route"), "path", "")
    methods = [method.upper() for method in request.app.openapi()["paths"].get(template, ["get"])]
    return {"Allow": ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])}


def examples_in(described: dict[str, Any]) -> dict[str, Any]:
    """The examples of problems, by code, in the OpenAPI of a response."""
    examples: dict[str, Any] = described.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    return examples


def invalid(error: ValidationError, *prefix: str) -> ValidationFailed:
    """A ValidationFailed for a model that was validated by hand; `prefix` is the model's position in the body."""
    return ValidationFailed(errors=_field_errors(errors_in(error, *prefix)))


def _field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    """The first 20 of Pydantic's errors as `{detail, pointer}`. Input and context, which may quote it, are not
    repeated."""
    return [{"detail": _detail(each), "pointer": _pointer(each)} for each in errors[:_MAX_ERRORS]]


def _detail(error: dict[str, Any]) -> str:
    if error["type"] == "uuid_parsing":  # the one message that quotes the input
        return "Input should be a valid UUID"
    if error["type"] == "missing" and tuple(error["loc"]) == ("body",):
        return "A JSON body is required, {} at least"
    text = str(error["msg"]).removeprefix("Value error, ")
    return _IN_WORDS.get(text, text)


def _pointer(error: dict[str, Any]) -> str:
    """The location of an error as a JSON Pointer."""
    loc = error["loc"]
    if error["type"] == "json_invalid":  # its location is an offset into the text, not a path
        loc = tuple(step for step in loc if isinstance(step, str))
    return pointer_to(*(loc[1:] if loc and loc[0] == "body" else loc))


def pointer_to(*steps: int | str) -> str:
    """A JSON Pointer (RFC 6901). Names that a client invented are truncated, not echoed whole."""
    return "".join("/" + str(step)[:64].replace("~", "~0").replace("/", "~1") for step in steps)


@router.get("/problems")
async def _problem_index() -> HTMLResponse:
    """All problem types, by status."""
    known = sorted(AppError.by_code.items())
    parts = []
    for status in sorted({error.status for _, error in known}):
        rows = (
            f'<li><a href="problems/{code}">{code}</a>: {escape(error.title)}'
            for code, error in known
            if error.status == status
        )
        parts.append(f"<h2>{status} {HTTPStatus(status).phrase}</h2><ul>{''.join(rows)}</ul>")
    return pages.page(context.prefix.get(), "Problems", "".join(parts))


@router.get("/problems/{code}")
async def _problem_page(request: Request, code: str) -> HTMLResponse:
    """One problem type, with an example and the calls that answer with it. Raises NotFound."""
    error = AppError.by_code.get(code)
    if error is None:
        raise NotFound
    text = re.sub("`(.+?)`", r"<code>\1</code>", escape(error.explanation))
    example = Problem.of(error(), EXAMPLE_REQUEST_ID).model_dump_json(indent=2, exclude_none=True, by_alias=True)
    calls = "".join(f"<li><code>{call}</code>" for call in _calls_that_answer(request.app.openapi()["paths"], code))
    parts = [
        f"<p><code>{code}</code>: {error.status} {HTTPStatus(error.status).phrase}<p>{text}",
        f'<pre tabindex="0" aria-label="Example">{escape(example)}</pre>',
        f"<h2>Calls that answer with it</h2><ul>{calls}</ul>" if calls else "",
        '<p><a href="../problems">All problems</a>',
    ]
    return pages.page(context.prefix.get(), error.title, "".join(parts))


def _calls_that_answer(paths: dict[str, Any], code: str) -> list[str]:
    return [
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method, operation in item.items()
        if any(code in examples_in(response) for response in operation["responses"].values())
    ]
