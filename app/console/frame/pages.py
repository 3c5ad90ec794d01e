"""Templates, and the responses that are made with them. All that they are given is escaped."""

import hashlib
from asyncio import to_thread
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.auth.principal import Scope
from app.console.frame import formats, origin, wording
from app.errors import AppError
from app.telemetry import context
from app.web import docs
from app.web.pages import STYLE

_HERE = Path(__file__).parent.parent
STATIC = _HERE / "static"
SHARED = {each.name: each for each in (STYLE, docs.STYLE)}
"""Files of other pages that the console's use, too."""
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
DONE = "done"
"""The parameter of the query that says what was done."""

_DONE = {
    "accepted": "Accepted: it is processed as soon as its turn comes.",
    "cancelled": "Cancelled.",
    "deleted": "Moved to the trash.",
    "ended": "Ended.",
    "password": "The password is changed. All other sessions have ended.",
    "paused": "Paused.",
    "purged": "Deleted for good.",
    "removed": "Removed.",
    "replaced": "The file is replaced.",
    "restored": "Restored.",
    "resumed": "Resumed.",
    "revoked": "Revoked.",
    "saved": "Saved.",
    "sent": "Sent.",
    "signed-out": "You are signed out.",
    "uploaded": "Uploaded.",
}
_KEPT = ("Allow", "Retry-After")  # of an error's fields

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(formats.FILTERS)


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """The page that a template makes of the values."""
    principal = getattr(request.state, "principal", None)
    shared = {
        "root": _root(),
        "asset": _asset,
        "path": request.scope["path"].removeprefix(_root()),
        "url": request.scope["path"]
        + (f"?{query}" if (query := request.scope["query_string"].decode("latin-1")) else ""),
        "done": _DONE.get(request.scope.get("done", "")),
        "signed_in": principal is not None,
        "operates": principal is not None and Scope.OPERATOR in principal.scopes,
    }
    assert not shared.keys() & values.keys()
    return HTMLResponse(_templates.get_template(template).render(shared | values), status)


async def long_page(request: Request, template: str, **values: Any) -> Response:
    """A page that may take a tenth of a second to make, in a thread: others are answered meanwhile."""
    return await to_thread(page, request, template, **values)


def problem(request: Request, error: AppError) -> Response:
    """The page about an error, with its status."""
    told = {"said": wording.said(error), "wrong": wording.wrong(error), "request_id": context.request_id.get()}
    response = page(request, "problem.html", error.status, error=error, back=_before(request), **told)
    return with_fields_of(error, response)


def drawing(template: str, **values: Any) -> Response:
    """The picture that a template makes of the values."""
    return Response(_templates.get_template(template).render(values), media_type="image/svg+xml")


def with_fields_of(error: AppError, response: Response) -> Response:
    """The response with those fields of an error that are true of a page, too."""
    response.headers.update({name: value for name, value in (error.headers or {}).items() if name in _KEPT})
    return response


def to(path: str, done: str = "") -> Response:
    """Have the browser go on to a path of the console, by GET, where it is said what was done.

    A path that would lead out of the console leads to its root.
    """
    steps = unquote(urlsplit(path).path).replace("\\", "/").split("/")
    there = "" if ".." in steps else path
    if done:
        assert done in _DONE, done
        there, mark, part = there.partition("#")
        there = f"{there}{'&' if '?' in there else '?'}{DONE}={done}{mark}{part}"
    return RedirectResponse(_root() + there, 303)


def to_sign_in(request: Request) -> Response:
    """Have the browser sign in first, and then come back to a page that only shows something."""
    here = request.scope["path"].removeprefix(f"{_root()}/")
    query = _query(request)
    shows = request.method == "GET" and here != request.scope["path"]
    there = f"/sign-in?next={quote(f'{here}?{query}' if query else here, safe='')}" if shows else "/sign-in"
    if "hx-request" in request.headers:  # the page that is open, not a part of it
        return Response(status_code=204, headers={"HX-Redirect": _root() + there})
    return to(there)


def guard(response: Response) -> None:
    """Say what the page may load, and on what it depends. A file that is sent has a stricter policy of its own."""
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Referrer-Policy"] = "same-origin"  # without a referrer, a form's `Origin` would be `null`
    response.headers.add_vary_header("Cookie, Origin, Sec-Fetch-Site")


def _before(request: Request) -> str | None:
    """The page of the console from which the browser came here, if it says so."""
    there = origin.page_before(request) or ""
    return there if f"{there.partition('?')[0]}/".startswith(f"{_root()}/") else None


def _query(request: Request) -> str:
    return str(request.scope["query_string"].decode("latin-1"))


def _root() -> str:
    return f"{context.prefix.get()}/console"


@cache
def _asset(name: str) -> str:
    """Where a file of the console is. Another version has another address, because browsers keep it."""
    file = SHARED.get(name, STATIC / name)
    return f"static/{name}?{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
