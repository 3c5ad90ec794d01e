"""The principal of a request, as an annotated parameter."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPBearer, OAuth2PasswordBearer

from app.auth.schemas import User
from app.auth.service import AuthService
from app.errors import InvalidToken, Unauthorized
from app.telemetry import context
from app.web.dependencies import service
from app.web.route import Route

# Both are declared for the API description only: either form of Authorize works in /docs.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token from POST /auth/login.")
_password = OAuth2PasswordBearer("auth/login", auto_error=False)


async def authenticate(request: Request) -> User:
    """Authenticate the bearer token (RFC 6750 §2.1) and bind the user to the log context.

    Raises Unauthorized without one, InvalidToken for a bad one.
    """
    sent = request.headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized  # no error code for a client that did not try this method (RFC 6750 §3)
    if len(sent) > 1:
        raise InvalidToken
    auth: AuthService = request.app.state.services.auth
    user = await auth.authenticate(token)
    context.actor.set(f"user:{user.id}")
    structlog.contextvars.bind_contextvars(user_id=str(user.id))
    return user


class AuthenticatedRoute(Route):
    """A route that knows its user before it reads a byte of the body."""

    async def answer(self, request: Request) -> Response:
        request.state.user = await authenticate(request)
        return await super().answer(request)


def _current_user(request: Request) -> User:
    user: User = request.state.user
    return user


Service = Annotated[AuthService, service("auth")]
CurrentUser = Annotated[User, Depends(_current_user)]


def authenticated_router(**options: Any) -> APIRouter:
    """A router whose every route wants an access token."""
    return APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(_bearer), Depends(_password)], **options)
