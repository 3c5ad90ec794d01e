"""Authentication of requests, and the current user as an annotated parameter."""

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

# Both only describe the API, so that either form of Authorize works in /docs.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token from POST /auth/login.")
_password = OAuth2PasswordBearer("auth/login", auto_error=False)


async def authenticate(request: Request) -> User:
    """The user of the bearer token (RFC 6750 §2.1), who also becomes the actor of the context.

    Raises Unauthorized without a token, InvalidToken for a token that is not valid.
    """
    sent = request.headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if sent else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized  # without an error code, as the client sent no bearer token (RFC 6750 §3)
    if len(sent) > 1:
        raise InvalidToken
    auth: AuthService = request.app.state.services.auth
    user = await auth.authenticate(token)
    context.actor.set(context.user(user.id))
    structlog.contextvars.bind_contextvars(user_id=str(user.id))
    return user


class AuthenticatedRoute(Route):
    """A route that authenticates the request before it reads a byte of the body."""

    async def answer(self, request: Request) -> Response:
        """Authenticate, then call the handler. Raises Unauthorized, InvalidToken, and what Route raises."""
        request.state.user = await authenticate(request)
        return await super().answer(request)


def _current_user(request: Request) -> User:
    user: User = request.state.user
    return user


Service = Annotated[AuthService, service("auth")]
CurrentUser = Annotated[User, Depends(_current_user)]


def authenticated_router(**options: Any) -> APIRouter:
    """A router whose routes all require an access token."""
    return APIRouter(route_class=AuthenticatedRoute, dependencies=[Depends(_bearer), Depends(_password)], **options)
