"""Requests and responses of the routes of webhooks."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import RowMapping

from app.documents.schemas import Moment
from app.events.failure import Failure
from app.web.fields import COMPOSED, LINE, PROSE, WHOLE
from app.web.pagination import Page
from app.webhooks.models import MAX_URL, DeliveryState, EndpointState, Trigger
from app.webhooks.payloads import EventType, MessageType

LONGEST_RECOVERY = timedelta(days=14)

_URL = "https://example.com/hooks"
_ID = "01939f3e-5c00-7000-8000-000000000005"
_Url = Annotated[str, Field(min_length=1, max_length=MAX_URL, pattern=LINE, examples=[_URL])]
_Description = Annotated[str, Field(max_length=2000, pattern=PROSE), COMPOSED]


def _distinct(types: list[EventType] | None) -> list[EventType] | None:
    return types and list(dict.fromkeys(types))


_EventTypes = Annotated[
    Annotated[list[EventType], Field(min_length=1, max_length=50)] | None,
    AfterValidator(_distinct),
    Field(description="null: all there are, and those to come."),
]


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default")


class Choice(StrEnum):
    """What an owner can make of a webhook."""

    ACTIVE = EndpointState.ACTIVE.value
    PAUSED = EndpointState.PAUSED.value


class WebhookRequest(BaseModel):
    """Where to tell what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"url": _URL, "event_types": ["document.completed", "document.failed"]}},
    )

    url: _Url
    event_types: _EventTypes = None
    description: _Description | None = None


class WebhookChanges(BaseModel):
    """A merge patch (RFC 7396): a field that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"state": "PAUSED"}})

    url: _Url = Field("", json_schema_extra=_without_default)
    event_types: _EventTypes = None
    description: _Description | None = None
    state: Choice = Field(
        Choice.ACTIVE,
        description="`PAUSED`: deliveries pile up until it is `ACTIVE` again, which a disabled one becomes, too.",
        json_schema_extra=_without_default,
    )


class Webhook(BaseModel):
    """A webhook as its owner sees it."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": _ID,
                "url": _URL,
                "event_types": ["document.completed", "document.failed"],
                "description": None,
                "state": "ACTIVE",
                "disabled_reason": None,
                "failing_since": None,
                "previous_valid_until": None,
                "version": 1,
                "created_at": "2026-11-21T12:00:00.000Z",
                "updated_at": "2026-11-21T12:00:00.000Z",
            }
        },
    )

    id: UUID
    url: str
    event_types: list[str] | None
    description: str | None
    state: EndpointState
    disabled_reason: str | None = Field(description="`failing`, or `gone`: it answered 410.")
    failing_since: datetime | None = Field(description="Since when no delivery has succeeded; null: the last one did.")
    previous_valid_until: datetime | None = Field(description="Until when the secret before signs, too.")
    version: int = Field(description="Rises with every change; `ETag` holds it.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        """The webhook in a row of its table."""
        return cls(**row, previous_valid_until=row["previous_until"] if row["rotating"] else None)

    @property
    def etag(self) -> str:
        """The value of the `ETag` header, with its quotes."""
        return f'"{self.version}"'


class CreatedWebhook(Webhook):
    """A new webhook, with its secret."""

    secret: str | None = Field(
        description="Verifies what is sent. Shown this once: null in the answer to a repeated request.",
        examples=["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="],
    )


class WebhookPage(Page[Webhook]):
    """A page of the list of webhooks."""


class RotateRequest(BaseModel):
    """How long the secret so far goes on to sign, too."""

    model_config = ConfigDict(extra="forbid")

    previous_valid_for: Annotated[int, Field(ge=0, le=604800, strict=True), WHOLE] = Field(
        86400, description="Seconds; 0: not any more, nor those before it.", examples=[3600]
    )


class RotatedSecret(BaseModel):
    """The new secret."""

    secret: str = Field(description="Shown this once.", examples=["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="])
    previous_valid_until: datetime | None


class RecoverRequest(BaseModel):
    """What happened since one moment and before another, 14 days at the most."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"since": "2026-11-21T12:00:00Z", "until": "2026-11-22T12:00:00Z"}},
    )

    since: Moment
    until: Moment

    @model_validator(mode="after")
    def _is_short(self) -> Self:
        if not timedelta(0) < self.until - self.since <= LONGEST_RECOVERY:
            raise ValueError("From since to until must be more than nothing and at most 14 days")
        return self


class Recovered(BaseModel):
    """How much is delivered again."""

    deliveries: int
    complete: bool = Field(description="false: there is more, repeat the request.")


class Delivery(BaseModel):
    """A message for a webhook."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    webhook_id: UUID
    event_id: UUID = Field(description="`webhook-id` of each of its requests.")
    type: str = Field(examples=["document.completed"])
    document_id: UUID | None
    trigger: Trigger
    state: DeliveryState
    next_attempt_at: datetime | None = Field(description="Not before; null once it is over.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: RowMapping, **more: Any) -> Self:
        """The delivery in a row of `repository.matching`."""
        return cls(**row, webhook_id=row["endpoint_id"], next_attempt_at=row["run_at"], **more)


class DeliveryPage(Page[Delivery]):
    """A page of the list of deliveries."""


class DeliveryAttempt(BaseModel):
    """One request, or what became of it."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="Counts from 1.")
    at: datetime
    url: str = Field(description="Empty: the process that made it was killed, and nobody knows whether it was sent.")
    status: int | None = Field(description="The status that was answered with; null: there was no answer.")
    duration_ms: int | None
    error: Failure | None
    response: str | None = Field(description="The first 1,024 characters of the answer, if it was text.")


class DeliveryDetails(Delivery):
    """A message for a webhook, and each attempt to deliver it."""

    attempts: list[DeliveryAttempt]


class DeliveryFilters(BaseModel):
    """Query parameters of the list."""

    state: DeliveryState | None = None
    type: MessageType | None = None
    document_id: UUID | None = None
