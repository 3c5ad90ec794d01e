"""/api-keys: make, list, rotate and revoke keys, with a login only."""

from typing import Annotated
from uuid import UUID

from fastapi import Response

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.keys.schemas import ApiKey, ApiKeyPage, ApiKeyRotation, IssuedApiKey, NewApiKey
from app.auth.keys.service import ApiKeys
from app.auth.principal import Scope
from app.idempotency import IdempotencyKey
from app.web.body import json_response
from app.web.dependencies import bound, service
from app.web.describe import header, links, raises
from app.web.pagination import Cursor, Limit

# No key can have these scopes, so none makes, shows or changes keys: a stolen one brings its thief no other.
reading, writing = (
    authenticated_router(scope, prefix="/api-keys", tags=["api keys"])
    for scope in (Scope.ACCOUNT_READ, Scope.ACCOUNT_WRITE)
)

Service = Annotated[ApiKeys, service("keys")]
KeyId = Annotated[UUID, bound("key_id")]

_LOCATION = {"Location": header("The key.", "/api-keys/01939f3e-5c00-7000-8000-000000000004")}
_ISSUED = {
    "headers": {**_LOCATION, **idempotency.HEADERS},
    "links": links("getApiKey", "rotateApiKey", "revokeApiKey", key_id="$response.body#/id"),
}
_DEFAULTS = ApiKeyRotation()


@writing.post(
    "",
    operation_id="createApiKey",
    status_code=201,
    response_model=IssuedApiKey,
    responses={201: _ISSUED, **raises(errors.ApiKeyQuotaExceeded, body=True, keyed=True)},
)
async def create(body: NewApiKey, principal: CurrentPrincipal, service: Service, key: IdempotencyKey) -> Response:
    """Make a key for a program. The answer shows it, and nothing will again.

    It may do what its scopes say, and never more than the account may at the time of a request.
    """
    answer = await service.create(principal, body, key)
    return answer.response()


@reading.get("", operation_id="listApiKeys", response_model=ApiKeyPage, responses=raises(errors.InvalidCursor))
async def list_keys(
    principal: CurrentPrincipal, service: Service, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The caller's keys, the newest first. Those that have expired are there for 30 days more."""
    return json_response(await service.page(principal, limit, cursor))


@reading.get("/{key_id}", operation_id="getApiKey", response_model=ApiKey, responses=raises(errors.NotFound))
async def get(key_id: KeyId, principal: CurrentPrincipal, service: Service) -> Response:
    """A key: what it may do, and when it was used last."""
    return json_response(await service.get(principal, key_id))


@writing.delete(
    "/{key_id}",
    operation_id="revokeApiKey",
    status_code=204,
    responses=raises(errors.NotFound, errors.StorageFull),
)
async def revoke(key_id: KeyId, principal: CurrentPrincipal, service: Service) -> Response:
    """Revoke a key: it is refused from now on, also for what is still being received."""
    await service.revoke(principal, key_id)
    return Response(status_code=204)


@writing.post(
    "/{key_id}/rotate",
    operation_id="rotateApiKey",
    response_model=IssuedApiKey,
    responses={
        200: _ISSUED,
        **raises(errors.NotFound, errors.RotationInProgress, errors.Conflict, body=True, keyed=True),
    },
)
async def rotate(
    key_id: KeyId,
    principal: CurrentPrincipal,
    service: Service,
    key: IdempotencyKey,
    body: ApiKeyRotation = _DEFAULTS,
) -> Response:
    """Give a key another secret. Its id, scopes and expiry stay, and the secret before is good for a while."""
    answer = await service.rotate(principal, key_id, body, key)
    return answer.response()
