"""Queries for what an endpoint would have been told, and never was."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, select

from app.webhooks.models import DeliveryState, deliveries, messages


def missed(
    owner_id: UUID, endpoint_id: UUID, types: Sequence[str], since: datetime, until: datetime
) -> Select[tuple[UUID]]:
    """The ids of the events of a time, the oldest first."""
    return (
        select(messages.c.event_id)
        .where(messages.c.owner_id == owner_id, messages.c.type.in_(types))
        .where(messages.c.created_at >= since, messages.c.created_at < until)
        .where(~_under_way_or_done(endpoint_id))
        .order_by(messages.c.created_at)
    )


def still_missed(owner_id: UUID, endpoint_id: UUID, event_ids: Sequence[UUID]) -> Select[Any]:
    """Those of the events, as they are told."""
    return (
        select(messages.c.event_id, messages.c.owner_id, messages.c.type, messages.c.document_id)
        .where(messages.c.owner_id == owner_id, messages.c.event_id.in_(event_ids))
        .where(~_under_way_or_done(endpoint_id))
        .order_by(messages.c.event_id)
    )


def _under_way_or_done(endpoint_id: UUID) -> ColumnElement[bool]:
    states = (DeliveryState.PENDING, DeliveryState.DELIVERED)
    own = (deliveries.c.event_id == messages.c.event_id, deliveries.c.endpoint_id == endpoint_id)
    return exists().where(*own, deliveries.c.state.in_(states))
