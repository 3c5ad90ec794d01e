"""API keys: the list, and what forms do with them. A key is on the page that answers to its form, and on no other."""

from collections.abc import Mapping
from uuid import uuid4

from fastapi import Request, Response

from app.auth.dependencies import SCOPES, CurrentPrincipal
from app.auth.keys.routes import KeyId, Service
from app.auth.keys.schemas import ApiKeyRotation, IssuedApiKey, NewApiKey
from app.auth.principal import KEY_SCOPES, Scope
from app.console.frame import forms, pages, paging
from app.console.frame.route import pages_for
from app.idempotency import StoredResponse
from app.web.pagination import Cursor, Limit

reading = pages_for(Scope.ACCOUNT_READ)
writing = pages_for(Scope.ACCOUNT_WRITE)

_DAY = 86400


@reading.get("/keys")
async def find(
    request: Request, principal: CurrentPrincipal, service: Service, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The keys, the latest first, and the form for another."""
    found = await service.page(principal, limit, cursor)
    scopes = {scope: SCOPES[scope] for scope in KEY_SCOPES if scope in principal.scopes}
    shown = {"keys": found.items, "scopes": scopes, "key": uuid4, **paging.links(request, found.next_cursor)}
    return pages.page(request, "account/keys.html", **shown)


@writing.post("/keys")
async def create(request: Request, principal: CurrentPrincipal, service: Service) -> Response:
    """Make a key."""
    fields = await forms.fields_of(request)
    return _secret(request, await service.create(principal, _wanted(fields), forms.idempotency_key(fields)))


@writing.post("/keys/{key_id}/rotate")
async def rotate(request: Request, key_id: KeyId, principal: CurrentPrincipal, service: Service) -> Response:
    """Give a key another secret."""
    fields = await forms.fields_of(request)
    wanted = forms.valid(ApiKeyRotation, {"previous_valid_for": forms.whole(fields.get("previous_valid_for"))})
    return _secret(request, await service.rotate(principal, key_id, wanted, forms.idempotency_key(fields)))


@writing.post("/keys/{key_id}/revoke")
async def revoke(key_id: KeyId, principal: CurrentPrincipal, service: Service) -> Response:
    """Revoke a key."""
    await service.revoke(principal, key_id)
    return pages.to("/keys", "revoked")


def _wanted(fields: Mapping[str, str]) -> NewApiKey:
    scopes = [scope for scope in KEY_SCOPES if f"scope.{scope}" in fields]
    expires_in = forms.whole(fields.get("days"), times=_DAY)
    return forms.valid(NewApiKey, {"name": fields.get("name", ""), "scopes": scopes, "expires_in": expires_in})


def _secret(request: Request, answer: StoredResponse) -> Response:
    issued = IssuedApiKey.model_validate_json(answer.body)
    return pages.page(request, "secret.html", what="key", of=issued.name, secret=issued.key, there="/keys")
