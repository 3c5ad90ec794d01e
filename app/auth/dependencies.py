"""Authentication and authorisation of requests, and the principal as an annotated parameter."""

from typing import Annotated, Any, ClassVar

import structlog
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer, OAuth2PasswordBearer

from app.auth.principal import Principal, Scope, current
from app.auth.service import AuthService
from app.errors import InvalidToken, Unauthorized
from app.telemetry import context
from app.web.dependencies import bearer_token, service
from app.web.rates import ACCOUNT
from app.web.route import Route, count

_SCOPES: dict[str, str] = {
    Scope.ACCOUNT_READ: "See the account and its sessions.",
    Scope.ACCOUNT_WRITE: "Change the password, and end sessions.",
    Scope.DOCUMENTS_READ: "List and fetch documents, their results and timelines, and jobs.",
    Scope.DOCUMENTS_WRITE: "Upload documents, and edit their metadata.",
    Scope.DOCUMENTS_DELETE: "Delete documents.",
    Scope.DOCUMENTS_PROCESS: "Process documents, and cancel jobs.",
    Scope.WEBHOOKS_MANAGE: "Manage webhooks, and see their deliveries.",
    Scope.WORKER: "Claim and settle jobs from outside. Operators only.",
    Scope.AUDIT_READ: "Read the audit trail. Operators only.",
    Scope.OPERATOR: "Run the service: see and steer the accounts, documents and jobs of all. Operators only.",
}

# Both only describe the API, so that either form of Authorize works in /docs.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token from POST /auth/login.")
_password = OAuth2PasswordBearer(
    "auth/token",
    auto_error=False,
    scopes=_SCOPES,
    description="The username is the account's e-mail address; register first, with POST /auth/register.",
)


async def _authenticate(request: Request) -> Principal:
    """The principal of the bearer token (RFC 6750 §2.1).

    Raises Unauthorized without a token, InvalidToken for a token that is not valid.
    """
    sent = request.headers.getlist("authorization")
    token = bearer_token(sent[0]) if sent else None
    if token is None:
        raise Unauthorized  # without an error code, as the client sent no bearer token (RFC 6750 §3)
    if len(sent) > 1:
        raise InvalidToken
    auth: AuthService = request.app.state.services.auth
    return await auth.authenticate(token)


class _AuthenticatedRoute(Route):
    """A route for principals with its scope. Others are refused before a byte of the body is read."""

    needed: ClassVar[Scope]

    async def admit(self, request: Request) -> None:
        """Let in the principal, who becomes the context's. Requests without one count for the client's address.

        Raises Unauthorized, InvalidToken, InsufficientScope, RateLimited.
        """
        try:
            principal = await _authenticate(request)
        except Unauthorized:
            await super().admit(request)
            raise
        await count(request, ACCOUNT, str(principal.owner_id))
        structlog.contextvars.bind_contextvars(user_id=str(principal.owner_id))
        principal.require(self.needed)
        context.actor.set(principal.actor)
        context.credential.set(principal.credential_id)
        current.set(principal)


def _current_principal() -> Principal:
    return current.get()


Service = Annotated[AuthService, service("auth")]
CurrentPrincipal = Annotated[Principal, Depends(_current_principal)]


def authenticated_router(scope: Scope, *, body_limit: int = Route.max_body, **options: Any) -> APIRouter:
    """A router whose routes all need an access token with the scope, and take JSON of up to `body_limit` bytes."""

    class ScopedRoute(_AuthenticatedRoute):
        needed = scope
        max_body = body_limit

    schemes = [Security(scheme, scopes=[scope]) for scheme in (_bearer, _password)]
    return APIRouter(route_class=ScopedRoute, dependencies=schemes, **options)
