"""/auth: register, login, refresh, logout; the account, its password and its sessions."""

from collections.abc import Collection
from typing import Annotated
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app import errors
from app.auth.dependencies import CurrentPrincipal, Service, authenticated_router
from app.auth.principal import Scope
from app.auth.schemas import (
    Account,
    Credentials,
    NewUser,
    PasswordChange,
    RefreshRequest,
    SessionPage,
    TokenPair,
    User,
)
from app.auth.service import AuthService
from app.web.body import json_response, media_type
from app.web.client import unless_gone
from app.web.dependencies import bound
from app.web.describe import raises
from app.web.pagination import Cursor, Limit
from app.web.problems import invalid
from app.web.route import Route


class _AuthRoute(Route):
    """Anybody may call it, so it takes no more than it needs."""

    max_body = 8 * 1024


router = APIRouter(prefix="/auth", tags=["auth"], route_class=_AuthRoute)
reading, writing = (
    authenticated_router(scope, body_limit=_AuthRoute.max_body, prefix="/auth", tags=["auth"])
    for scope in (Scope.ACCOUNT_READ, Scope.ACCOUNT_WRITE)
)

SessionId = Annotated[UUID, bound("session_id")]

_FORM_BODY = {"application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/TokenForm"}}}
_JSON_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/Credentials"}}}


@router.post(
    "/register",
    operation_id="register",
    status_code=201,
    response_model=User,
    responses=raises(errors.EmailTaken, errors.RegistrationClosed, errors.WeakPassword, authenticated=False, body=True),
)
async def register(request: Request, body: NewUser, service: Service) -> Response:
    """Create an account."""
    return json_response(await unless_gone(request, service.register(body.email, body.password)), 201)


@router.post(
    "/login",
    operation_id="login",
    response_model=TokenPair,
    responses=raises(errors.InvalidCredentials, errors.LoginThrottled, errors.TooBusy, authenticated=False, body=True),
    # Generators of clients stumble over an operation that takes two types.
    openapi_extra={"requestBody": {"required": True, "content": _JSON_BODY}},
)
async def login(request: Request, service: Service) -> Response:
    """Exchange an email and a password for a token pair. The form of POST /auth/token is accepted, too."""
    return await _token_pair(request, service, _JSON_BODY | _FORM_BODY)


@router.post(
    "/token",
    operation_id="token",
    response_model=TokenPair,
    responses=raises(errors.InvalidCredentials, errors.LoginThrottled, errors.TooBusy, authenticated=False, body=True),
    openapi_extra={"requestBody": {"required": True, "content": _FORM_BODY}},
)
async def token(request: Request, service: Service) -> Response:
    """Exchange an email and a password for a token pair, as OAuth2 clients do (RFC 6749 §4.3)."""
    return await _token_pair(request, service, _FORM_BODY)


@router.post(
    "/refresh",
    operation_id="refresh",
    response_model=TokenPair,
    responses=raises(errors.InvalidRefreshToken, authenticated=False, body=True),
)
async def refresh(body: RefreshRequest, service: Service) -> Response:
    """Exchange a refresh token for a new pair.

    Each works once. A retry within seconds, before the next refresh, gets the same refresh token again; any other reuse
    ends the session.
    """
    return json_response(await service.refresh(body.refresh_token))


@router.post("/logout", operation_id="logout", status_code=204, responses=raises(authenticated=False, body=True))
async def logout(body: RefreshRequest, service: Service) -> Response:
    """End the session of a refresh token: its refresh and access tokens are refused from now on."""
    await service.logout(body.refresh_token)
    return Response(status_code=204)


@reading.get("/me", operation_id="me", response_model=Account, responses=raises())
async def me(principal: CurrentPrincipal, service: Service) -> Response:
    """The account that the access token belongs to, what it uses, and its quota."""
    return json_response(await service.account(principal.owner_id))


@writing.post(
    "/password",
    operation_id="changePassword",
    status_code=204,
    responses=raises(errors.WrongPassword, errors.WeakPassword, errors.LoginThrottled, errors.TooBusy, body=True),
)
async def change_password(
    request: Request, body: PasswordChange, principal: CurrentPrincipal, service: Service
) -> Response:
    """Change the password. All other sessions end; this one goes on."""
    await unless_gone(request, service.change_password(principal, body.current_password, body.new_password))
    return Response(status_code=204)


@reading.get(
    "/sessions",
    operation_id="listSessions",
    response_model=SessionPage,
    responses=raises(errors.InvalidCursor),
)
async def list_sessions(
    principal: CurrentPrincipal, service: Service, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The caller's sessions, the latest login first."""
    return json_response(await service.sessions(principal, limit, cursor))


@writing.delete(
    "/sessions",
    operation_id="endOtherSessions",
    status_code=204,
    responses=raises(errors.StorageFull),
)
async def end_other_sessions(principal: CurrentPrincipal, service: Service) -> Response:
    """End all sessions of the caller but the one that this request belongs to."""
    await service.end_other_sessions(principal)
    return Response(status_code=204)


@writing.delete(
    "/sessions/{session_id}",
    operation_id="endSession",
    status_code=204,
    responses=raises(errors.NotFound, errors.StorageFull),
)
async def end_session(session_id: SessionId, principal: CurrentPrincipal, service: Service) -> Response:
    """End a session: its refresh and access tokens are refused from now on."""
    await service.end_session(principal, session_id)
    return Response(status_code=204)


async def _token_pair(request: Request, service: AuthService, accepted: Collection[str]) -> Response:
    credentials = await _credentials(request, accepted)
    pair = await unless_gone(request, service.login(credentials.email, credentials.password))
    return json_response(pair)


async def _credentials(request: Request, accepted: Collection[str]) -> Credentials:
    """The credentials in the body, if it is of an `accepted` media type."""
    kind = media_type(request)
    if kind not in accepted:
        raise errors.UnsupportedMediaType
    try:
        data = await request.json() if kind == "application/json" else _form(await request.body())
        return Credentials.model_validate(data)
    except ValidationError as error:
        raise invalid(error) from None
    except ValueError:
        wanted = "valid JSON" if kind == "application/json" else "a valid form"
        raise errors.ValidationFailed(f"The body is not {wanted}.") from None


def _form(body: bytes) -> dict[str, str]:
    """The email and the password in a form. The other fields of RFC 6749 §4.3.2 are not used."""
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20))
    if fields.get("grant_type", "password") != "password":
        raise errors.ValidationFailed("The only grant type is `password`.")
    return {
        "email" if name == "username" else name: fields[name] for name in ("username", "password") if name in fields
    }
