"""The account: what it uses, its password, and what happened to it."""

from fastapi import Request, Response

from app.audit.routes import Service as Audit
from app.auth.dependencies import CurrentPrincipal, Service
from app.auth.principal import Scope
from app.auth.schemas import PasswordChange
from app.console.account.activity import said
from app.console.frame import forms, pages, paging
from app.console.frame.route import pages_for
from app.web.client import unless_gone
from app.web.pagination import Cursor

reading = pages_for(Scope.ACCOUNT_READ)
writing = pages_for(Scope.ACCOUNT_WRITE)

_SHOWN = 20  # events


@reading.get("/account")
async def show(
    request: Request, principal: CurrentPrincipal, service: Service, audit: Audit, cursor: Cursor = None
) -> Response:
    """The account of whoever is signed in."""
    account = await service.account(principal.owner_id)
    found = await audit.activity(principal, _SHOWN, cursor)
    shown = {"activity": found.items, "said": said, **paging.links(request, found.next_cursor)}
    return pages.page(request, "account/account.html", account=account, **shown)


@writing.post("/account/password")
async def change_password(request: Request, principal: CurrentPrincipal, service: Service) -> Response:
    """Change the password. All other sessions end."""
    fields = await forms.fields_of(request)
    sent = forms.valid(PasswordChange, {name: fields.get(name, "") for name in PasswordChange.model_fields})
    await unless_gone(request, service.change_password(principal, sent.current_password, sent.new_password))
    return pages.to("/account", "password")
