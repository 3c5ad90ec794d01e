"""The list of webhooks, the page of one of them, and that of a delivery."""

from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages, paging
from app.console.frame.route import pages_for
from app.web.pagination import Cursor, Limit
from app.webhooks.models import DeliveryState
from app.webhooks.payloads import EventType, MessageType
from app.webhooks.routes import DeliveryId, Service, WebhookId
from app.webhooks.schemas import DeliveryFilters

router = pages_for(Scope.WEBHOOKS_MANAGE)

_CHOICES: dict[str, Any] = {
    "states": list(DeliveryState),
    "types": list(MessageType),
    "event_types": list(EventType),
}


@router.get("/webhooks")
async def find(
    request: Request, principal: CurrentPrincipal, service: Service, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The webhooks, the latest first, and the form for another."""
    found = await service.find(principal, limit, cursor)
    shown = {"webhooks": found.items, "key": uuid4(), **paging.links(request, found.next_cursor)}
    return pages.page(request, "webhooks/list.html", **shown, **_CHOICES)


@router.get("/webhooks/{webhook_id}")
async def show(
    *,
    request: Request,
    webhook_id: WebhookId,
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[DeliveryFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """One webhook, and what was sent to it, the latest first."""
    webhook = await service.get(principal, webhook_id)
    found = await service.deliveries(principal, webhook_id, filters, limit, cursor)
    shown = {"deliveries": found.items, "filters": filters, **paging.links(request, found.next_cursor)}
    return pages.page(request, "webhooks/webhook.html", webhook=webhook, **shown, **_CHOICES)


@router.get("/webhooks/{webhook_id}/deliveries/{delivery_id}")
async def show_delivery(
    request: Request, webhook_id: WebhookId, delivery_id: DeliveryId, principal: CurrentPrincipal, service: Service
) -> Response:
    """One delivery: what is sent, and each attempt to send it."""
    webhook = await service.get(principal, webhook_id)
    delivery = await service.delivery(principal, webhook_id, delivery_id)
    sent = orjson.loads(await service.message(principal, webhook_id, delivery_id))
    return pages.page(request, "webhooks/delivery.html", webhook=webhook, delivery=delivery, sent=sent)
