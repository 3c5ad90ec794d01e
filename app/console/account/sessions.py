"""The sessions of the account: who is signed in, where, and how to end that."""

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal, Service
from app.auth.principal import Scope
from app.auth.routes import SessionId
from app.console.frame import cookie, pages, paging
from app.console.frame.route import pages_for
from app.web.pagination import Cursor

reading = pages_for(Scope.ACCOUNT_READ)
writing = pages_for(Scope.ACCOUNT_WRITE)

_SHOWN = 50


@reading.get("/sessions")
async def find(request: Request, principal: CurrentPrincipal, service: Service, cursor: Cursor = None) -> Response:
    """The sessions, the latest first."""
    found = await service.sessions(principal, _SHOWN, cursor)
    shown = {"sessions": found.items, **paging.links(request, found.next_cursor)}
    return pages.page(request, "account/sessions.html", **shown)


@writing.post("/sessions/{session_id}/end")
async def end(session_id: SessionId, principal: CurrentPrincipal, service: Service) -> Response:
    """End one of them."""
    await service.end_session(principal, session_id)
    return pages.to("/sessions", "ended")


@writing.post("/sessions/end-others")
async def end_others(principal: CurrentPrincipal, service: Service) -> Response:
    """End all but this one."""
    await service.end_other_sessions(principal)
    return pages.to("/sessions", "ended")


@writing.post("/sign-out")
async def sign_out(principal: CurrentPrincipal, service: Service) -> Response:
    """End this one."""
    await service.sign_out(principal)
    return cookie.remove(pages.to("/sign-in", "signed-out"))
