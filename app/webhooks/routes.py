"""/webhooks, and what was sent to them."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.idempotency import IdempotencyKey
from app.web.body import json_response
from app.web.conditional import expected_versions
from app.web.dependencies import bound, service
from app.web.describe import accepts, header, links, raises
from app.web.pagination import Cursor, Limit
from app.webhooks.schemas import (
    CreatedWebhook,
    Delivery,
    DeliveryDetails,
    DeliveryFilters,
    DeliveryPage,
    Recovered,
    RecoverRequest,
    RotatedSecret,
    RotateRequest,
    Webhook,
    WebhookChanges,
    WebhookPage,
    WebhookRequest,
)
from app.webhooks.service import WebhookService

router = authenticated_router(Scope.WEBHOOKS_MANAGE, prefix="/webhooks", tags=["webhooks"])

Service = Annotated[WebhookService, service("webhooks")]
WebhookId = Annotated[UUID, bound("webhook_id")]
DeliveryId = Annotated[UUID, bound("delivery_id")]

_DEFAULTS = RotateRequest()
_ETAG = {"ETag": header("The version of the webhook.", '"1"')}
_LOCATION = {"Location": header("The webhook.", "/webhooks/01939f3e-5c00-7000-8000-000000000005")}
_OF_WEBHOOK = links(
    *("getWebhook", "editWebhook", "deleteWebhook", "rotateWebhookSecret", "testWebhook", "listDeliveries"),
    webhook_id="$response.body#/id",
)
_OF_DELIVERY = links(
    "getDelivery", "redeliver", webhook_id="$response.body#/webhook_id", delivery_id="$response.body#/id"
)
_CREATED = {**_LOCATION, **idempotency.HEADERS}


@router.post(
    "",
    operation_id="createWebhook",
    status_code=201,
    response_model=CreatedWebhook,
    responses={
        201: {"headers": _CREATED, "links": _OF_WEBHOOK},
        **raises(errors.UrlNotAllowed, errors.TooManyWebhooks, errors.EncryptionKeyMissing, body=True, keyed=True),
    },
)
async def create(body: WebhookRequest, principal: CurrentPrincipal, service: Service, key: IdempotencyKey) -> Response:
    """Add a webhook: what happens to the caller's documents is sent to its URL, signed as Standard Webhooks 1.0 has it.

    The secret to verify it with is in this answer only.
    """
    return (await service.create(principal, body, key)).response()


@router.get("", operation_id="listWebhooks", response_model=WebhookPage, responses=raises(errors.InvalidCursor))
async def list_webhooks(
    principal: CurrentPrincipal, service: Service, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """The caller's webhooks, newest first."""
    return json_response(await service.find(principal, limit, cursor))


@router.get(
    "/{webhook_id}",
    operation_id="getWebhook",
    response_model=Webhook,
    responses={200: {"headers": _ETAG}, **raises(errors.NotFound)},
)
async def get_webhook(webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """One webhook. Its secret is not shown again."""
    webhook = await service.get(principal, webhook_id)
    return json_response(webhook, headers={"ETag": webhook.etag})


@router.patch(
    "/{webhook_id}",
    operation_id="editWebhook",
    response_model=Webhook,
    responses={
        200: {"headers": _ETAG},
        **raises(errors.UrlNotAllowed, errors.NotFound, errors.PreconditionFailed, body=True),
    },
    openapi_extra=accepts(If_Match="Versions that may be changed: 412 if the webhook is at another one."),
)
async def edit_webhook(
    request: Request, webhook_id: WebhookId, body: WebhookChanges, principal: CurrentPrincipal, service: Service
) -> Response:
    """Change a webhook, by a merge patch (RFC 7396). With `If-Match`, only if it is still at that version.

    While it is `PAUSED`, deliveries pile up. Once it is `ACTIVE` again they are made, if it was not disabled meanwhile.
    """
    changes = body.model_dump(mode="json", exclude_unset=True)
    webhook = await service.edit(principal, webhook_id, expected_versions(request), changes)
    return json_response(webhook, headers={"ETag": webhook.etag})


@router.delete(
    "/{webhook_id}",
    operation_id="deleteWebhook",
    status_code=204,
    responses=raises(errors.NotFound, errors.PreconditionFailed, errors.TooBusy, errors.StorageFull),
    openapi_extra=accepts(If_Match="Versions that may be deleted: 412 if the webhook is at another one."),
)
async def delete_webhook(
    request: Request, webhook_id: WebhookId, principal: CurrentPrincipal, service: Service
) -> Response:
    """Delete a webhook with its deliveries: nothing more is sent. With `If-Match`, only if it is at that version."""
    await service.delete(principal, webhook_id, expected_versions(request))
    return Response(status_code=204)


@router.post(
    "/{webhook_id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    response_model=RotatedSecret,
    responses=raises(errors.NotFound, errors.RotationInProgress, errors.EncryptionKeyMissing, body=True),
)
async def rotate_secret(
    *, webhook_id: WebhookId, principal: CurrentPrincipal, service: Service, body: RotateRequest = _DEFAULTS
) -> Response:
    """Replace the secret. For a time each request has two signatures, one under each of both secrets.

    If the answer gets lost, repeat the request with a `previous_valid_for` of 0.
    """
    return json_response(await service.rotate_secret(principal, webhook_id, body))


@router.post(
    "/{webhook_id}/test",
    operation_id="testWebhook",
    status_code=202,
    response_model=Delivery,
    responses={
        202: {"links": _OF_DELIVERY},
        **raises(errors.NotFound, errors.WebhookInactive, errors.TooBusy, errors.StorageFull),
    },
)
async def test_webhook(webhook_id: WebhookId, principal: CurrentPrincipal, service: Service) -> Response:
    """Send a `ping`, whatever types of events the webhook wants."""
    return json_response(await service.test(principal, webhook_id), 202)


@router.post(
    "/{webhook_id}/recover",
    operation_id="recoverWebhook",
    status_code=202,
    response_model=Recovered,
    responses=raises(errors.NotFound, errors.WebhookInactive, errors.SearchTooBroad, body=True),
)
async def recover(
    webhook_id: WebhookId, body: RecoverRequest, principal: CurrentPrincipal, service: Service
) -> Response:
    """Deliver what the webhook was never told of a time, such as one in which it was disabled. It is safe to repeat."""
    return json_response(await service.recover(principal, webhook_id, body), 202)


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="listDeliveries",
    response_model=DeliveryPage,
    responses=raises(errors.NotFound, errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy),
)
async def list_deliveries(
    *,
    webhook_id: WebhookId,
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[DeliveryFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """What was and is to be sent to a webhook, newest first."""
    return json_response(await service.deliveries(principal, webhook_id, filters, limit, cursor))


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    operation_id="getDelivery",
    response_model=DeliveryDetails,
    responses=raises(errors.NotFound),
)
async def get_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, principal: CurrentPrincipal, service: Service
) -> Response:
    """One delivery, with each attempt to make it."""
    return json_response(await service.delivery(principal, webhook_id, delivery_id))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    operation_id="redeliver",
    status_code=202,
    response_model=Delivery,
    responses={
        202: {"links": _OF_DELIVERY},
        **raises(errors.NotFound, errors.WebhookInactive, errors.TooBusy, errors.StorageFull),
    },
)
async def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, principal: CurrentPrincipal, service: Service
) -> Response:
    """Send the same message again, with the same `webhook-id`, in a delivery of its own."""
    return json_response(await service.redeliver(principal, webhook_id, delivery_id), 202)
