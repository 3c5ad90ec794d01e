"""/auth: register, login, refresh, logout, me."""

from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app import errors
from app.auth.dependencies import CurrentPrincipal, Service, authenticated_router
from app.auth.principal import Scope
from app.auth.schemas import Credentials, NewUser, RefreshRequest, TokenPair, User
from app.web.body import json_response, media_type
from app.web.describe import raises
from app.web.problems import invalid
from app.web.route import Route

router = APIRouter(prefix="/auth", tags=["auth"], route_class=Route)
authenticated = authenticated_router(Scope.ACCOUNT_READ, prefix="/auth", tags=["auth"])

_NO_STORE = {"Cache-Control": "no-store"}  # RFC 6749 §5.1
_FORM = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {
        "grant_type": {"type": "string", "enum": ["password"]},
        "username": {"type": "string", "description": "The email.", "example": "ada@example.com"},
        "password": {"type": "string", "format": "password", "example": "correct horse battery staple"},
        "scope": {"type": "string", "description": "Not used: a login may do all that its user may."},
    },
}
_LOGIN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Credentials"}},
            "application/x-www-form-urlencoded": {"schema": _FORM},
        },
    }
}


@router.post(
    "/register",
    operation_id="register",
    status_code=201,
    response_model=User,
    responses=raises(errors.EmailTaken, errors.RegistrationClosed, authenticated=False, body=True),
)
async def register(body: NewUser, service: Service) -> Response:
    """Create an account."""
    return json_response(await service.register(body.email, body.password), 201)


@router.post(
    "/login",
    operation_id="login",
    response_model=TokenPair,
    responses=raises(errors.InvalidCredentials, authenticated=False, body=True),
    openapi_extra=_LOGIN_BODY,
)
async def login(request: Request, service: Service) -> Response:
    """Exchange an email and a password, as JSON or as the OAuth2 password form, for a token pair."""
    credentials = await _credentials(request)
    pair = await service.login(credentials.email, credentials.password)
    return json_response(pair, headers=_NO_STORE)


@router.post(
    "/refresh",
    operation_id="refresh",
    response_model=TokenPair,
    responses=raises(errors.InvalidRefreshToken, authenticated=False, body=True),
)
async def refresh(body: RefreshRequest, service: Service) -> Response:
    """Exchange a refresh token for a new pair. Each works once; using it again later revokes all of the same login."""
    return json_response(await service.refresh(body.refresh_token), headers=_NO_STORE)


@router.post("/logout", operation_id="logout", status_code=204, responses=raises(authenticated=False, body=True))
async def logout(body: RefreshRequest, service: Service) -> Response:
    """Revoke a refresh token and all others of the same login."""
    await service.logout(body.refresh_token)
    return Response(status_code=204)


@authenticated.get("/me", operation_id="me", response_model=User, responses=raises())
async def me(principal: CurrentPrincipal, service: Service) -> Response:
    """The account that the access token belongs to."""
    return json_response(await service.user(principal.owner_id))


async def _credentials(request: Request) -> Credentials:
    kind = media_type(request)
    if kind not in {"application/json", "application/x-www-form-urlencoded"}:
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
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20))
    if fields.get("grant_type", "password") != "password":
        raise errors.ValidationFailed("The only grant type is `password`.")
    return {
        "email" if name == "username" else name: fields[name] for name in ("username", "password") if name in fields
    }
