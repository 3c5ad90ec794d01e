"""Authentication and authorisation of requests, and the principal as an annotated parameter."""

from typing import Annotated, Any, ClassVar

import structlog
from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPBearer, OAuth2PasswordBearer

from app.auth.principal import Principal, Scope, current
from app.auth.service import AuthService
from app.errors import InsufficientScope, InvalidToken, Unauthorized
from app.telemetry import context
from app.web.dependencies import service
from app.web.route import Route

_SCOPES: dict[str, str] = {
    Scope.ACCOUNT_READ: "See the account.",
    Scope.DOCUMENTS_READ: "List and fetch documents, their results and timelines, and jobs.",
    Scope.DOCUMENTS_WRITE: "Upload documents, and edit their metadata.",
    Scope.DOCUMENTS_DELETE: "Delete documents.",
    Scope.DOCUMENTS_PROCESS: "Process documents, and cancel jobs.",
}

# Both only describe the API, so that either form of Authorize works in /docs.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token from POST /auth/login.")
_password = OAuth2PasswordBearer("auth/login", auto_error=False, scopes=_SCOPES)


async def _authenticate(request: Request) -> Principal:
    """The principal of the bearer token (RFC 6750 §2.1).

    Raises Unauthorized without a token, InvalidToken for a token that is not valid.
    """
    sent = request.headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized  # without an error code, as the client sent no bearer token (RFC 6750 §3)
    if len(sent) > 1:
        raise InvalidToken
    auth: AuthService = request.app.state.services.auth
    return await auth.authenticate(token)


class _AuthenticatedRoute(Route):
    """A route for principals with its scope. Others are refused before a byte of the body is read."""

    needed: ClassVar[Scope]

    async def answer(self, request: Request) -> Response:
        """Call the handler for the principal, who becomes the context's.

        Raises Unauthorized, InvalidToken, InsufficientScope, and what Route raises.
        """
        principal = await _authenticate(request)
        structlog.contextvars.bind_contextvars(user_id=str(principal.owner_id))
        if self.needed not in principal.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{self.needed}"'  # RFC 6750 §3.1
            raise InsufficientScope(f"This needs the scope {self.needed}.", headers={"WWW-Authenticate": challenge})
        context.actor.set(principal.actor)
        current.set(principal)
        return await super().answer(request)


def _current_principal() -> Principal:
    return current.get()


Service = Annotated[AuthService, service("auth")]
CurrentPrincipal = Annotated[Principal, Depends(_current_principal)]


def authenticated_router(scope: Scope, **options: Any) -> APIRouter:
    """A router whose routes all need an access token with the scope."""

    class ScopedRoute(_AuthenticatedRoute):
        needed = scope

    schemes = [Security(scheme, scopes=[scope]) for scheme in (_bearer, _password)]
    return APIRouter(route_class=ScopedRoute, dependencies=schemes, **options)
