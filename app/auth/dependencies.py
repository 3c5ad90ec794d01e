"""Authentication and authorisation of requests, and the principal as an annotated parameter."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import structlog
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer

from app.auth.keys.text import PREFIX
from app.auth.principal import KEY_SCOPES, Principal, Scope, current
from app.auth.service import AuthService
from app.errors import InvalidToken, Unauthorized
from app.telemetry import context
from app.web.dependencies import bearer_token, service
from app.web.rates import ACCOUNT
from app.web.route import Route, count

SCOPES: dict[str, str] = {
    Scope.ACCOUNT_READ: "See the account, its sessions and its API keys. No API key may.",
    Scope.ACCOUNT_WRITE: "Change the password, end sessions, and make, rotate and revoke API keys. No API key may.",
    Scope.DOCUMENTS_READ: "List and fetch documents, their results and timelines, and jobs.",
    Scope.DOCUMENTS_WRITE: "Upload documents, and edit their metadata.",
    Scope.DOCUMENTS_DELETE: "Delete documents.",
    Scope.DOCUMENTS_PROCESS: "Process documents, and cancel jobs.",
    Scope.WEBHOOKS_MANAGE: "Manage webhooks, and see their deliveries. What they are told is of documents, so to "
    "add one, change its URL or make it active takes `documents:read`, too.",
    Scope.WORKER: "Claim and settle jobs from outside. Operators only.",
    Scope.AUDIT_READ: "Read the audit trail. Operators only.",
    Scope.OPERATOR: "Run the service: see and steer the accounts, documents and jobs of all. Operators only.",
}

# These only describe the API, so that each form of Authorize works in /docs.
BEARER = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    description="An access token from POST /auth/login, or an API key where `apiKey` is accepted. Under /remote/jobs, "
    "the token of the claim.",
)
_password = OAuth2PasswordBearer(
    "auth/token",
    auto_error=False,
    scopes=SCOPES,
    description="The username is the account's e-mail address; register first, with POST /auth/register.",
)
_api_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="apiKey",
    auto_error=False,
    description="A key from POST /api-keys, for programs. It may also be sent as a bearer token.",
)


async def _authenticate(request: Request) -> Principal:
    """The principal of the one access token or API key that was sent, as a bearer token (RFC 6750 §2.1) or, a key only,
    in X-API-Key.

    Raises Unauthorized without any, InvalidToken for what is not valid or more than one, and ApiKeyExpired.
    """
    authorizations, keys = (request.headers.getlist(name) for name in ("authorization", "x-api-key"))
    token = keys[0] if keys else bearer_token(authorizations[0]) if authorizations else None
    if token is None:
        raise Unauthorized  # without an error code, as the client sent no bearer token (RFC 6750 §3)
    if len(authorizations) + len(keys) > 1:
        raise InvalidToken
    services = request.app.state.services
    service = services.keys if keys or token.startswith(PREFIX) else services.auth
    principal: Principal = await service.authenticate(token)
    return principal


class _AuthenticatedRoute(Route):
    """A route for principals with its scope. Others are refused before a byte of the body is read."""

    needed: ClassVar[Scope]

    async def admit(self, request: Request) -> None:
        """Let in the principal, who becomes the context's. Requests without one count for the client's address.

        Raises Unauthorized, InvalidToken, ApiKeyExpired, InsufficientScope, RateLimited.
        """
        try:
            principal = await _authenticate(request)
        except Unauthorized:
            await super().admit(request)
            raise
        await let_in(request, principal, self.needed)


async def let_in(request: Request, principal: Principal, needed: Scope) -> None:
    """Count the request for its account, and let in its principal, who becomes the context's.

    Raises InsufficientScope, RateLimited.
    """
    owner_id = str(principal.owner_id)
    await count(request, ACCOUNT, owner_id)
    by_key = {"key_id": str(principal.credential_id)} if principal.via == "key" else {}
    structlog.contextvars.bind_contextvars(user_id=owner_id, **by_key)
    principal.require(needed)
    actor = context.operator(principal.owner_id) if needed is Scope.OPERATOR else principal.actor
    principal = replace(principal, actor=actor, needed=needed)
    context.actor.set(principal.actor)
    context.account.set(owner_id)
    context.credential.set(principal.credential_id)
    current.set(principal)


def _current_principal() -> Principal:
    return current.get()


Service = Annotated[AuthService, service("auth")]
CurrentPrincipal = Annotated[Principal, Depends(_current_principal)]


def authenticated_router(scope: Scope, *, body_limit: int = Route.max_body, **options: Any) -> APIRouter:
    """A router whose routes all need an access token with the scope, or an API key if a key can have it, and take JSON
    of up to `body_limit` bytes."""

    class ScopedRoute(_AuthenticatedRoute):
        needed = scope
        max_body = body_limit

    accepted = (BEARER, _password, _api_key) if scope in KEY_SCOPES else (BEARER, _password)
    schemes = [Security(scheme, scopes=[scope]) for scheme in accepted]
    return APIRouter(route_class=ScopedRoute, dependencies=schemes, **options)
