"""Accounts: the list, each one, and what operators do with it. Passwords and erasing are the command line's."""

from uuid import UUID

from fastapi import Request, Response

from app.accounts.routes import AccountId, Search, Service
from app.audit.dependencies import Noted
from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Role, Scope
from app.console.frame import forms, pages, paging
from app.console.frame.route import pages_for
from app.console.operators import requests
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.OPERATOR, "/operators/accounts")


@router.get("", operation_id="listAccounts")
async def find(
    *,
    request: Request,
    service: Service,
    noted: Noted,
    search: Search = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The accounts, the oldest first."""
    found = await service.page(search, limit, cursor)
    await noted({"search": search}, None)
    shown = paging.links(request, found.next_cursor)
    return pages.page(request, "operators/accounts.html", accounts=found.items, search=search, **shown)


@router.get("/{account_id}", operation_id="getAccount")
async def show(
    request: Request, account_id: AccountId, principal: CurrentPrincipal, service: Service, noted: Noted
) -> Response:
    """One account."""
    account, own = await service.get(account_id), await service.own_quota(account_id)
    await noted({}, account_id)
    is_own = principal.owner_id == account_id
    return pages.page(request, "operators/account.html", account=account, own=own, is_own=is_own, roles=list(Role))


@router.post("/{account_id}/change")
async def change(request: Request, account_id: AccountId, principal: CurrentPrincipal, service: Service) -> Response:
    """Enable or disable it, or give it another role."""
    await service.change(principal, account_id, requests.account_changes(await forms.fields_of(request)))
    return _to(account_id)


@router.post("/{account_id}/sign-out")
async def sign_out(account_id: AccountId, service: Service) -> Response:
    """End all its sessions."""
    await service.sign_out(account_id)
    return _to(account_id)


@router.post("/{account_id}/quota")
async def set_quota(request: Request, account_id: AccountId, principal: CurrentPrincipal, service: Service) -> Response:
    """Say how much it may use."""
    wanted = requests.quota_change(await forms.fields_of(request))
    await service.change_quota(account_id, wanted.model_dump(), principal)
    return _to(account_id)


def _to(account_id: UUID) -> Response:
    return pages.to(f"/operators/accounts/{account_id}", "saved")
