"""Requests and responses of /auth."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.web.fields import LINE


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
_RefreshToken = Annotated[str, Field(min_length=1, max_length=512)]


class Strict(BaseModel):
    """A model that refuses unknown fields and whose errors do not quote the input."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NewUser(Strict):
    """The account to be created."""

    email: Email
    password: Password


class Credentials(Strict):
    """Email and password of a login."""

    email: Annotated[str, Field(max_length=254, examples=["ada@example.com"]), AfterValidator(_lenient_address)]
    password: Annotated[str, Field(max_length=256, examples=["correct horse battery staple"])]


class RefreshRequest(Strict):
    """The refresh token to be exchanged or revoked."""

    refresh_token: _RefreshToken


class User(BaseModel):
    """An account."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    created_at: datetime


class TokenPair(BaseModel):
    """An access token, and the refresh token that gets the next pair."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"
    expires_in: int = Field(description="Seconds until the access token expires.")
