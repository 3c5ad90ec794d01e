"""Requests and responses of /api-keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from app.auth.principal import KEY_SCOPES, Scope
from app.auth.schemas import Strict
from app.web.fields import COMPOSED, LINE, WHOLE
from app.web.pagination import Page

MAX_TTL = 10 * 365 * 86400  # seconds
MAX_OVERLAP = 7 * 86400  # seconds


def _grantable(scope: Scope) -> Scope:
    if scope not in KEY_SCOPES:
        raise ValueError("A key cannot have this scope: the account and its keys are managed with a login")
    return scope


def _distinct(scopes: list[Scope]) -> list[Scope]:
    return list(dict.fromkeys(scopes))


_SCOPES = {"type": "string", "enum": KEY_SCOPES, "x-enum-varnames": [scope.name for scope in KEY_SCOPES]}
KeyScope = TypeAliasType("KeyScope", Annotated[Scope, AfterValidator(_grantable), WithJsonSchema(_SCOPES)])


class NewApiKey(Strict):
    """The key to be made: what it is for, and what it may do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "nightly import",
                "scopes": ["documents:read", "documents:write"],
                "expires_in": 7776000,
            }
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=LINE), COMPOSED]
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=50), AfterValidator(_distinct)]
    expires_in: Annotated[int, Field(ge=1, le=MAX_TTL, strict=True), WHOLE] | None = Field(
        None, description="Seconds until the key expires. Left out: as late as the service allows, or never."
    )


class ApiKeyRotation(Strict):
    """How long the key as it was is good beside the new one."""

    previous_valid_for: Annotated[int, Field(ge=0, le=MAX_OVERLAP, strict=True), WHOLE] = Field(
        86400, description="Seconds; 0: not any more, nor those before it.", examples=[3600]
    )


class ApiKey(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    scopes: list[str] = Field(description="What it may do, as far as its owner may.", examples=[["documents:read"]])
    prefix: str = Field(description="The first characters of the key.", examples=["dla_8Wq2Zt5c"])
    last4: str = Field(description="The last characters of the key.", examples=["x3Pq"])
    created_at: datetime
    rotated_at: datetime = Field(description="When the present secret was made.")
    previous_valid_until: datetime | None = Field(description="Until when the secret before is good, too.")
    expires_at: datetime | None = Field(description="Null: never.")
    last_used_at: datetime | None = Field(description="Up to a minute old.")
    last_used_ip: str | None = Field(description="Address of the last use.", examples=["192.0.2.7"])


class IssuedApiKey(ApiKey):
    """A key with its secret, which is shown once."""

    key: str | None = Field(
        description="What requests are sent with. Null in a replay: it is stored nowhere.",
        examples=["dla_8Wq2Zt5cN0aB7dE3fG6hJ9kL1mP4rS2u0Hx3Pq"],
    )


class ApiKeyPage(Page[ApiKey]):
    """A page of the caller's keys."""
