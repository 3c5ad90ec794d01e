"""/admin/accounts: what operators do with accounts.

Passwords are set on the command line only: whoever sets one could log in and read what an operator may not. So is
erasing, which takes as long as there are files.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from app import errors
from app.accounts.schemas import AccountChanges, AccountDetails, AccountPage, AccountQuota, QuotaChange
from app.accounts.service import Accounts
from app.audit.dependencies import Noted
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.web.body import json_response
from app.web.dependencies import bound, service
from app.web.describe import raises
from app.web.fields import LINE
from app.web.pagination import Cursor, Limit

router = authenticated_router(Scope.OPERATOR, prefix="/admin/accounts", tags=["operators"])

Service = Annotated[Accounts, service("accounts")]
AccountId = Annotated[UUID, bound("account_id")]
Search = Annotated[str, Query(max_length=254, pattern=LINE, description="A part of the address.")]


@router.get(
    "",
    operation_id="listAccounts",
    response_model=AccountPage,
    responses=raises(errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy, errors.StorageFull),
)
async def list_accounts(
    service: Service, noted: Noted, search: Search = "", limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The accounts, oldest first, each with what it uses."""
    page = await service.page(search, limit, cursor)
    await noted({"search": search}, None)
    return json_response(page)


@router.get(
    "/{account_id}",
    operation_id="getAccount",
    response_model=AccountDetails,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def get_account(account_id: AccountId, service: Service, noted: Noted) -> Response:
    """One account, what it uses, and how much it may use."""
    account = await service.get(account_id)
    await noted({}, account_id)
    return json_response(account)


@router.patch(
    "/{account_id}",
    operation_id="changeAccount",
    response_model=AccountDetails,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.OwnAccount, errors.LoginRequired, body=True),
)
async def change_account(
    account_id: AccountId, body: AccountChanges, principal: CurrentPrincipal, service: Service
) -> Response:
    """Enable or disable an account, or give it another role. What is left out stays as it is.

    With an API key, an account can be disabled, and nothing else.
    """
    return json_response(await service.change(principal, account_id, body))


@router.post(
    "/{account_id}/sign-out",
    operation_id="signOutAccount",
    status_code=204,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.TooBusy, errors.StorageFull),
)
async def sign_out_account(account_id: AccountId, service: Service) -> Response:
    """End all sessions of an account."""
    await service.sign_out(account_id)
    return Response(status_code=204)


@router.get(
    "/{account_id}/quota",
    operation_id="getQuota",
    response_model=AccountQuota,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def get_quota(account_id: AccountId, service: Service, noted: Noted) -> Response:
    """What an account uses, and how much it may use."""
    account = await service.get(account_id)
    await noted({}, account_id)
    return json_response(AccountQuota(usage=account.usage, quota=account.quota))


@router.put(
    "/{account_id}/quota",
    operation_id="setQuota",
    response_model=AccountQuota,
    responses=raises(errors.ValidationFailed, errors.NotFound, body=True),
)
async def set_quota(
    account_id: AccountId, body: QuotaChange, principal: CurrentPrincipal, service: Service
) -> Response:
    """Say how much an account may use. What is null or left out is as the settings say."""
    used, allowed = await service.change_quota(account_id, body.model_dump(), principal)
    return json_response(AccountQuota(usage=used, quota=allowed))
