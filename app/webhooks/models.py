"""The tables of webhooks: who is told, what, and every attempt to tell it.

event ──> message (the bytes) ──> delivery to each endpoint that wants it ──> attempts
"""

from enum import StrEnum

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Uuid,
    text,
)

from app.database import UTCDateTime, metadata
from app.encryption import Encrypted

MAX_URL = 2048  # characters
RESPONSE = 1024  # characters of a response that are kept


class EndpointState(StrEnum):
    """Whether an endpoint is told of events."""

    ACTIVE = "ACTIVE"
    """It is."""

    PAUSED = "PAUSED"
    """Its owner wants it later: deliveries pile up, and are made once it is ACTIVE again."""

    DISABLED = "DISABLED"
    """It failed for too long, or said that it is gone. Its owner makes it ACTIVE again."""


class DeliveryState(StrEnum):
    """Where a delivery stands. All but `PENDING` are final."""

    PENDING = "PENDING"
    """To be made, or to be tried again. Its job moves it on."""

    DELIVERED = "DELIVERED"
    """The endpoint took it."""

    FAILED = "FAILED"
    """It used up its attempts, or was refused for good."""

    DISCARDED = "DISCARDED"
    """The endpoint, or its owner's account, was disabled meanwhile."""


class Trigger(StrEnum):
    """Why there is a delivery."""

    EVENT = "event"
    MANUAL = "manual"
    RECOVERY = "recovery"
    TEST = "test"


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint("{} IN ({})".format(column, ", ".join(f"'{each}'" for each in values)), name=column)


endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("url", String(MAX_URL), nullable=False),
    Column("description", String(2000)),
    # NULL: all that there are, and will be.
    Column("event_types", JSON(none_as_null=True)),
    Column("state", String(8), nullable=False),
    Column("disabled_reason", String(100)),
    Column("secret", LargeBinary, nullable=False),
    # Signs, too, until then.
    Column("previous_secret", LargeBinary),
    Column("previous_until", UTCDateTime),
    # Since when there were nothing but failures, and until when nobody else may try. NULL: the last attempt went well.
    Column("failing_since", UTCDateTime),
    Column("probe_at", UTCDateTime),
    Column("version", Integer, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("updated_at", UTCDateTime, nullable=False),
    _one_of("state", EndpointState),
    Index(None, "owner_id", "created_at", "id"),
)

messages = Table(
    "webhook_messages",
    metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(50), nullable=False),
    # What is sent, to the byte, whenever and to whomever.
    Column("body", LargeBinary, nullable=False),
    # No foreign key: that a document was deleted is told afterwards.
    Column("document_id", Uuid),
    Column("created_at", UTCDateTime, nullable=False),
    Index(None, "owner_id", "created_at"),
    Index(None, "created_at"),
)

_BY_EVENT = text("\"trigger\" = 'event'")
_OVER = text("finished_at IS NOT NULL")

deliveries = Table(
    "webhook_deliveries",
    metadata,
    # The id of its job, too, which is there while the delivery is pending.
    Column("id", Uuid, primary_key=True),
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", Uuid, ForeignKey("webhook_messages.event_id", ondelete="CASCADE"), nullable=False),
    Column("trigger", String(8), nullable=False),
    Column("state", String(9), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    _one_of("state", DeliveryState),
    Index(
        "uq_webhook_deliveries_of_event",
        "endpoint_id",
        "event_id",
        unique=True,
        sqlite_where=_BY_EVENT,
        postgresql_where=_BY_EVENT,
    ),
    Index(None, "event_id", "endpoint_id"),
    Index(None, "endpoint_id", "created_at", "id"),
    Index(None, "endpoint_id", "state", "created_at", "id"),
    Index("ix_webhook_deliveries_over", "finished_at", sqlite_where=_OVER, postgresql_where=_OVER),
)

attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    # The fence of its job: the attempts that were made rise with it, and none is there twice.
    Column("fence", Integer, primary_key=True),
    Column("at", UTCDateTime, nullable=False),
    # Empty: nobody knows whether it was sent.
    Column("url", String(MAX_URL), nullable=False),
    Column("status", Integer),
    Column("duration_ms", Integer),
    Column("error", JSON(none_as_null=True)),
    Column("response", String(RESPONSE)),
)

ENCRYPTED = Encrypted(endpoints.c.id, (endpoints.c.secret, endpoints.c.previous_secret))
