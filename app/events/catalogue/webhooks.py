"""What happens to webhooks, and to what they are told."""

from app.events.catalogue.base import Event, TimelineEvent
from app.events.failure import Failure


class _DeliveryEvent(TimelineEvent):
    """`type` is that of the message, and `attempt` counts from 1."""

    webhook_id: str
    delivery_id: str
    type: str
    attempt: int


class WebhookDelivered(_DeliveryEvent):
    """A webhook was told what happened to the document."""

    name = "webhook.delivered"


class WebhookFailed(_DeliveryEvent):
    """A webhook could not be told what happened to the document, and will not be."""

    name = "webhook.failed"
    error: Failure


class _WebhookEvent(Event):
    webhook_id: str


class WebhookCreated(_WebhookEvent):
    """A user added a webhook."""

    name = "webhook.created"


class WebhookEdited(_WebhookEvent):
    """A user changed a webhook: these fields of it."""

    name = "webhook.edited"
    fields: list[str]


class WebhookSecretRotated(_WebhookEvent):
    """A user replaced the secret of a webhook. The one before signed, too, for so many seconds more."""

    name = "webhook.secret_rotated"
    previous_valid_for: int


class WebhookTested(_WebhookEvent):
    """A user asked for a test of a webhook."""

    name = "webhook.tested"


class WebhookRedelivered(_WebhookEvent):
    """Its owner has a message sent to it again."""

    name = "webhook.redelivered"
    delivery_id: str


class WebhookRecovered(_WebhookEvent):
    """Its owner has messages sent to it that it missed: so many deliveries in one transaction."""

    name = "webhook.recovered"
    deliveries: int


class WebhookDisabled(_WebhookEvent):
    """A webhook is told nothing any more, because it failed for too long, or said that it is gone."""

    name = "webhook.disabled"
    _level = "warning"
    reason: str


class WebhookDeleted(_WebhookEvent):
    """A user deleted a webhook, with what it had not been told yet."""

    name = "webhook.deleted"
