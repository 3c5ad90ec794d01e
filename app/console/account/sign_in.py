"""Signing in and out."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response

from app.auth.dependencies import Service
from app.auth.schemas import Credentials
from app.console.frame import cookie, forms, pages
from app.console.frame.origin import is_exposed, require_private
from app.console.frame.route import public_pages, signed_in
from app.errors import AppError, Unauthorized
from app.web.client import unless_gone

router = public_pages()

# The path and query of a page of the console. Whatever it says, it is on this host: it is put after `/console/`.
_Next = Annotated[str, Query(alias="next", max_length=4000)]


@router.get("/sign-in")
async def ask(request: Request, then: _Next = "") -> Response:
    """The form."""
    return _form(request, then)


@router.post("/sign-in")
async def sign_in(request: Request, service: Service) -> Response:
    """Begin a session."""
    fields = await forms.fields_of(request)
    try:
        return await _begun(request, service, fields)
    except AppError as error:
        return _form(request, fields.get("next", ""), error, fields.get("email", ""))


@router.get("/signed-in")
async def arrive(request: Request, then: _Next = "") -> Response:
    """Go on, if the browser has kept the cookie."""
    try:
        await signed_in(request)
    except Unauthorized:
        return _form(request, then, lost=True)
    return pages.to(f"/{then}" if then else "")


async def _begun(request: Request, service: Service, fields: dict[str, str]) -> Response:
    """Raises Forbidden on a connection that no browser keeps the cookie on, ValidationFailed, and what `sign_in` of the
    service raises."""
    require_private(request)
    sent = forms.valid(Credentials, {name: fields.get(name, "") for name in ("email", "password")})
    session = await unless_gone(request, service.sign_in(sent.email, sent.password))
    return cookie.put(pages.to(f"/signed-in?next={quote(fields.get('next', ''), safe='')}"), session)


def _form(
    request: Request, then: str, error: AppError | None = None, email: str = "", *, lost: bool = False
) -> Response:
    exposed = error is None and is_exposed(request)
    status = error.status if error else 200
    response = pages.page(
        request, "account/sign_in.html", status, then=then, error=error, email=email, exposed=exposed, lost=lost
    )
    return pages.with_fields_of(error, response) if error else response
