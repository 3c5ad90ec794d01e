"""Errors as application/problem+json (RFC 9457), and an HTML page for each problem type."""

from collections.abc import Sequence
from html import escape
from typing import Any, Self

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from app.errors import AppError, BadRequest, InternalError, MethodNotAllowed, NotFound, ValidationFailed
from app.telemetry import context

router = APIRouter(include_in_schema=False)

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
    errors: list[FieldError] | None = Field(
        None, max_length=_MAX_ERRORS, description="With status 422: what is wrong, and where."
    )
    error: dict[str, str] | None = Field(
        None, description="With processing-failed and upload-rejected: the reason's `code` and `detail`."
    )
    checks: dict[str, str] | None = Field(None, description="With not-ready: `ok` or what is wrong, by check.")
    alarms: dict[str, str] | None = Field(None, description="With not-ready: what else an operator should look into.")

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
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, error.status, error.headers, "application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error, the framework's own included, with a problem."""
    app.include_router(router)

    @app.exception_handler(AppError)
    async def ours(_: Request, error: AppError) -> Response:
        return response(error)

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == MethodNotAllowed.status:
            return response(MethodNotAllowed(headers={**(error.headers or {}), **_allow(request)}))
        known = _BY_STATUS.get(error.status_code, BadRequest if error.status_code < 500 else InternalError)
        return response(known(headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return response(ValidationFailed(errors=_field_errors(error.errors())))


def _allow(request: Request) -> dict[str, str]:
    """All methods of the path (RFC 9110 §10.2.1); the framework names only those of the first matching route."""
    template = getattr(request.scope.get("route"), "path", "")
    methods = request.app.openapi()["paths"].get(template)
    return {"Allow": ", ".join(method.upper() for method in methods)} if methods else {}


def invalid(error: ValidationError, *prefix: str) -> ValidationFailed:
    """A ValidationFailed for a model that was validated by hand; `prefix` is the model's position in the body."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return ValidationFailed(errors=_field_errors([{**each, "loc": (*prefix, *each["loc"])} for each in found]))


def _field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    """The first 20 of Pydantic's errors as `{detail, pointer}`. Input and context, which may quote it, are not
    repeated."""
    return [{"detail": _detail(each), "pointer": _pointer(each)} for each in errors[:_MAX_ERRORS]]


def _detail(error: dict[str, Any]) -> str:
    if error["type"] == "uuid_parsing":  # the one message that quotes the input
        return "Input should be a valid UUID"
    return str(error["msg"]).removeprefix("Value error, ")


def _pointer(error: dict[str, Any]) -> str:
    """A location as a JSON Pointer (RFC 6901). Names that a client invented are truncated, not echoed whole."""
    loc = error["loc"]
    if error["type"] == "json_invalid":  # its location is an offset into the text, not a path
        loc = tuple(step for step in loc if isinstance(step, str))
    steps = loc[1:] if loc and loc[0] == "body" else loc
    return "".join("/" + str(step)[:64].replace("~", "~0").replace("/", "~1") for step in steps)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui; max-width: 42rem; margin: 4rem auto; padding: 0 1rem }}</style>
<h1>{title}</h1>
{body}
</html>"""


@router.get("/problems")
async def _problem_index() -> HTMLResponse:
    """All problem types."""
    known = sorted(AppError.by_code.items())
    rows = "".join(f'<li><a href="/problems/{code}">{code}</a>: {error.title}' for code, error in known)
    return HTMLResponse(_PAGE.format(title="Problems", body=f"<ul>{rows}</ul>"))


@router.get("/problems/{code}")
async def _problem_page(code: str) -> HTMLResponse:
    """One problem type. Raises NotFound."""
    error = AppError.by_code.get(code)
    if error is None:
        raise NotFound
    text = escape(" ".join((error.__doc__ or "").split()))
    body = f'<p><code>{error.code}</code>: HTTP {error.status}</p><p>{text}</p><p><a href="/problems">All</a></p>'
    return HTMLResponse(_PAGE.format(title=escape(error.title), body=body))
