"""Requests and responses of /auth."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.auth.principal import Role
from app.quotas import Quota, Usage
from app.web.fields import LINE
from app.web.pagination import Page


def canonical_address(value: str) -> str:
    """The one spelling of an email address that is stored. Raises ValueError for anything that is not an address."""
    try:
        # Addresses are compared, not written to: there is no DNS query, and test domains are accepted.
        return validate_email(value, check_deliverability=False, test_environment=True).normalized.lower()
    except EmailNotValidError:
        raise ValueError("not an email address") from None


def _lenient_address(value: str) -> str:
    """For logging in: an invalid address belongs to no account, and is answered like a wrong password."""
    try:
        return canonical_address(value)
    except ValueError:
        return value


Email = Annotated[
    str,
    Field(max_length=254, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(canonical_address),
]
Password = Annotated[
    str,
    Field(min_length=8, max_length=256, pattern=LINE, examples=["correct horse battery staple"]),
]
_CurrentPassword = Annotated[str, Field(max_length=256, pattern=LINE, examples=["correct horse battery staple"])]
_RefreshToken = Annotated[str, Field(min_length=1, max_length=512, pattern=LINE)]


class Strict(BaseModel):
    """A model that refuses unknown fields and whose errors do not quote the input."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NewUser(Strict):
    """The account to be created."""

    email: Email
    password: Password


class Credentials(Strict):
    """Email and password of a login."""

    email: Annotated[
        str, Field(max_length=254, pattern=LINE, examples=["ada@example.com"]), AfterValidator(_lenient_address)
    ]
    password: _CurrentPassword


class TokenForm(BaseModel):
    """Email and password of a login, as OAuth2 clients send them (RFC 6749 §4.3.2)."""

    grant_type: Literal["password"] = "password"
    username: str = Field(description="The email.", examples=["ada@example.com"])
    password: str = Field(examples=["correct horse battery staple"], json_schema_extra={"format": "password"})
    scope: str = Field("", description="Not used: a login may do all that its user may.")


class RefreshRequest(Strict):
    """The refresh token to be exchanged or revoked."""

    refresh_token: _RefreshToken


class PasswordChange(Strict):
    """The password to be replaced, and the new one."""

    current_password: _CurrentPassword
    new_password: Password


class Session(BaseModel):
    """A login, and what has refreshed it since."""

    id: UUID
    created_at: datetime = Field(description="The time of the login.")
    last_used_at: datetime | None = Field(description="The time of the last refresh, or of the login.")
    user_agent: str | None = Field(description="`User-Agent` of the last use.", examples=["curl/8.14.1"])
    client: str | None = Field(description="Address of the last use.", examples=["192.0.2.7"])
    current: bool = Field(description="Whether the request belongs to this session.")
    expires_at: datetime = Field(description="When it ends at the latest; before, if it is not refreshed for long.")


class SessionPage(Page[Session]):
    """A page of the caller's sessions."""


class User(BaseModel):
    """An account."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    created_at: datetime


class Account(User):
    """An account, what it uses, and how much it may use."""

    role: Role
    usage: Usage
    quota: Quota


class TokenPair(BaseModel):
    """An access token, and the refresh token that gets the next pair."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    access_token: str
    refresh_token: str
    token_type: str = "bearer"
    expires_in: int = Field(description="Seconds until the access token expires.")
