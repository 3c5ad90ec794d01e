"""What forms do with webhooks. A secret is on the page that answers to its form, and on no other."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.errors import PreconditionFailed, ValidationFailed
from app.webhooks.payloads import EventType
from app.webhooks.routes import DeliveryId, Service, WebhookId
from app.webhooks.schemas import CreatedWebhook, RecoverRequest, RotateRequest, WebhookChanges, WebhookRequest
from app.webhooks.service import WebhookService

router = pages_for(Scope.WEBHOOKS_MANAGE)


@router.post("/webhooks")
async def create(request: Request, principal: CurrentPrincipal, service: Service) -> Response:
    """Add a webhook."""
    fields = await forms.fields_of(request)
    wanted = forms.valid(WebhookRequest, {"url": fields.get("url", ""), **_stated(fields)})
    answer = await service.create(principal, wanted, forms.idempotency_key(fields))
    made = CreatedWebhook.model_validate_json(answer.body)
    return _secret(request, made.id, made.url, made.secret)


@router.post("/webhooks/{webhook_id}/edit")
async def edit(request: Request, webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Change where it is, what it is told, or what is said about it; or whether it is told anything."""
    fields = await forms.fields_of(request)
    await service.edit(principal, webhook_id, forms.versions(fields), _changes(fields))
    return pages.to(f"/webhooks/{webhook_id}", "saved")


@router.post("/webhooks/{webhook_id}/rotate-secret")
async def rotate(request: Request, webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Replace the secret."""
    fields = await forms.fields_of(request)
    webhook = await service.get(principal, webhook_id)
    return _secret(request, webhook_id, webhook.url, await _rotated(service, principal, webhook_id, fields))


@router.post("/webhooks/{webhook_id}/test")
async def test(webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Send a ping."""
    delivery = await service.test(principal, webhook_id)
    return pages.to(f"/webhooks/{webhook_id}/deliveries/{delivery.id}", "sent")


@router.post("/webhooks/{webhook_id}/recover")
async def recover(request: Request, webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Deliver what it was never told of a time."""
    fields = await forms.fields_of(request)
    asked = {name: forms.in_utc(fields.get(name, "")) for name in ("since", "until")}
    done = await service.recover(principal, webhook_id, forms.valid(RecoverRequest, asked))
    return pages.page(request, "webhooks/recovered.html", webhook_id=webhook_id, recovered=done)


@router.post("/webhooks/{webhook_id}/delete")
async def delete(webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Delete a webhook, with its deliveries."""
    await service.delete(principal, webhook_id, None)
    return pages.to("/webhooks", "removed")


@router.post("/webhooks/{webhook_id}/deliveries/{delivery_id}/resend")
async def resend(
    webhook_id: WebhookId, delivery_id: DeliveryId, principal: CurrentPrincipal, service: Service
) -> Response:
    """Send the same message again."""
    again = await service.redeliver(principal, webhook_id, delivery_id)
    return pages.to(f"/webhooks/{webhook_id}/deliveries/{again.id}", "sent")


def _stated(fields: Mapping[str, str]) -> dict[str, Any]:
    chosen = [each for each in EventType if f"event.{each}" in fields]
    return {"event_types": chosen or None, "description": fields.get("description")}


def _changes(fields: Mapping[str, str]) -> dict[str, Any]:
    """Those that the form makes. An address that stays the same is none: another forgives all failures."""
    changes = {"state": fields["state"]} if "state" in fields else _stated(fields)
    if "state" not in fields and fields.get("url") != fields.get("url_before"):
        changes["url"] = fields.get("url", "")
    return forms.valid(WebhookChanges, changes).model_dump(mode="json", exclude_unset=True)


async def _rotated(
    service: WebhookService, principal: Principal, webhook_id: UUID, fields: Mapping[str, str]
) -> str | None:
    """The new secret. None: the webhook has changed since its page was shown, by the same form or another.

    Raises ValidationFailed, also for a form that does not say which version was shown.
    """
    if (versions := forms.versions(fields)) is None:
        raise ValidationFailed("The form has no version. Load its page again.")
    asked = forms.valid(RotateRequest, {"previous_valid_for": forms.whole(fields.get("previous_valid_for"))})
    try:
        return (await service.rotate_secret(principal, webhook_id, asked, versions)).secret
    except PreconditionFailed:
        return None


def _secret(request: Request, webhook_id: UUID, url: str, secret: str | None) -> Response:
    there = f"/webhooks/{webhook_id}"
    return pages.page(request, "secret.html", what="secret", of=url, secret=secret, there=there)
