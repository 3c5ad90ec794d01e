"""Routes of the console: who is signed in by a cookie, whose forms they take, and errors as pages."""

import re
from contextlib import suppress
from typing import ClassVar
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.types import Receive, Scope as ASGIScope, Send

from app.auth.dependencies import let_in
from app.auth.principal import Principal, Scope
from app.console.frame import cookie, forms, pages
from app.console.frame.origin import require_own_page
from app.errors import AppError, MethodNotAllowed, Unauthorized
from app.web.body import StrictRequest
from app.web.problems import validation_failed
from app.web.route import Route

_TYPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")  # a time, in a browser's field for it
_TIMES = {b"created_after", b"created_before", b"since", b"until"}


class PublicPage(Route):
    """A page that anybody may see. What changes something is taken from the console's own pages only."""

    async def handle(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        request = StrictRequest(_as_of_page(scope), receive, send, self.max_body)
        response = await self._response(request)
        pages.guard(response)
        await response(scope, receive, send)

    async def admit(self, request: Request) -> None:
        """Raises Forbidden, RateLimited."""
        require_own_page(request)
        await super().admit(request)

    async def _response(self, request: Request) -> Response:
        try:
            if self.methods and request.method not in self.methods:
                raise MethodNotAllowed(headers={"Allow": ", ".join(sorted(self.methods))})
            await self.admit(request)
            return await self.answer(request)
        except Unauthorized:
            return pages.to_sign_in(request)
        except RequestValidationError as error:
            return await self._problem(request, validation_failed(error))
        except AppError as error:
            return await self._problem(request, error)

    async def _problem(self, request: Request, error: AppError) -> Response:
        """The page about an error, with the navigation of whoever is signed in, also where anybody may be."""
        with suppress(AppError):
            request.state.principal = await signed_in(request)
        return pages.problem(request, error)


class Page(PublicPage):
    """A page for whoever is signed in."""

    needed: ClassVar[Scope]

    async def admit(self, request: Request) -> None:
        """Let in the principal of the cookie. Others count for the client's address.

        Raises Forbidden, Unauthorized, InsufficientScope, RateLimited.
        """
        try:
            principal = await signed_in(request)
        except Unauthorized:
            await super().admit(request)
            raise
        require_own_page(request)
        await let_in(request, principal, self.needed)
        request.state.principal = principal


async def signed_in(request: Request) -> Principal:
    """The principal of the cookie. Raises Unauthorized."""
    presented = request.cookies.get(cookie.NAME)
    if not presented:
        raise Unauthorized
    principal: Principal = await request.app.state.services.auth.authenticate_browser(presented)
    return principal


def public_pages() -> APIRouter:
    """A router whose pages need nothing."""
    return APIRouter(prefix="/console", route_class=PublicPage, include_in_schema=False)


def pages_for(scope: Scope, prefix: str = "") -> APIRouter:
    """A router whose pages need this scope, at `/console` and the prefix."""

    class ScopedPage(Page):
        needed = scope

    return APIRouter(prefix=f"/console{prefix}", route_class=ScopedPage, include_in_schema=False)


def _as_of_page(scope: ASGIScope) -> ASGIScope:
    """The request without the parameters of the query that are empty: a form sends each of its fields. What was done
    before is no parameter of any page either."""
    given = [_zoned(each) for each in scope["query_string"].split(b"&") if not each.endswith(b"=")]
    rest = [each for each in given if not each.startswith(f"{pages.DONE}=".encode())]
    done = [each.partition(b"=")[2].decode("latin-1") for each in given if each not in rest]
    return {**scope, "query_string": b"&".join(rest), pages.DONE: "".join(done)}


def _zoned(parameter: bytes) -> bytes:
    """A parameter of a query. A time that a browser's field sent without its zone is in UTC."""
    name, _, value = parameter.partition(b"=")
    typed = unquote(value.decode("latin-1"))
    if name not in _TIMES or not _TYPED.fullmatch(typed):
        return parameter
    return name + b"=" + quote(forms.in_utc(typed)).encode()
