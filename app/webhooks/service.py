"""What owners do with webhooks, and what they see of the deliveries."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, RowMapping, Select, bindparam, tuple_
from uuid_utils.compat import uuid7

from app import errors, events, idempotency
from app.auth.credentials import required
from app.auth.principal import Principal, Scope
from app.database import Database
from app.encryption import Encryption
from app.events.catalogue.base import Event
from app.events.catalogue.webhooks import (
    WebhookCreated,
    WebhookDeleted,
    WebhookEdited,
    WebhookRecovered,
    WebhookRedelivered,
    WebhookSecretRotated,
    WebhookTested,
)
from app.idempotency import StoredResponse
from app.outbound import Outbound
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.web import pagination
from app.web.pagination import Keyset
from app.webhooks import recovery, repository
from app.webhooks.deliveries import Deliveries, Told
from app.webhooks.kind import DeliverKind, shown
from app.webhooks.models import EndpointState, Trigger, deliveries, endpoints
from app.webhooks.payloads import EventType, MessageType
from app.webhooks.schemas import (
    CreatedWebhook,
    Delivery,
    DeliveryAttempt,
    DeliveryDetails,
    DeliveryFilters,
    DeliveryPage,
    Recovered,
    RecoverRequest,
    RotatedSecret,
    RotateRequest,
    Webhook,
    WebhookPage,
    WebhookRequest,
)

T = TypeVar("T")

SECRET_BYTES = 32
RECOVERED_AT_ONCE = 200  # messages, in one transaction
MOST_RECOVERED = 10_000  # in one request


class WebhookService:
    """Manages webhooks. Each method acts for one owner; another owner's webhook raises NotFound."""

    def __init__(
        self,
        db: Database,
        outbound: Outbound,
        encryption: Encryption,
        deliveries: Deliveries,
        kind: DeliverKind,
        *,
        reserve: Reserve,
        settings: Settings,
    ) -> None:
        self._db = db
        self._outbound = outbound
        self._encryption = encryption
        self._deliveries = deliveries
        self._kind = kind
        self._reserve = reserve
        self._settings = settings

    async def create(self, principal: Principal, request: WebhookRequest, key: str | None) -> StoredResponse:
        """Add a webhook. Its secret is in the answer to this call only, and not in what is stored with the key.

        Raises InsufficientScope, UrlNotAllowed, TooManyWebhooks, IdempotencyKeyReused, EncryptionKeyMissing, and
        StorageFull.
        """
        principal.require(Scope.DOCUMENTS_READ)
        self._reserve.require()
        self._outbound.check(request.url)
        owner_id, webhook_id, secret = principal.owner_id, uuid7(), secrets.token_bytes(SECRET_BYTES)
        stored, values = self._encryption.encrypt(secret), request.model_dump(mode="json")
        keyed = idempotency.keyed(owner_id, key, self._settings.idempotency_ttl, "POST", "/webhooks", values)
        most = self._settings.quota_webhooks

        def work(conn: Connection) -> StoredResponse:
            if most and repository.count(conn, owner_id) >= most:
                raise errors.TooManyWebhooks
            repository.add(conn, id=webhook_id, owner_id=owner_id, secret=stored, **values)
            _record(conn, principal, WebhookCreated(webhook_id=str(webhook_id)))
            created = CreatedWebhook(**dict(_owned(conn, principal, webhook_id)), secret=None)
            return StoredResponse(201, created.model_dump_json().encode(), f"/webhooks/{webhook_id}")

        answer = await self._write(principal, partial(idempotency.once, request=keyed, work=work))
        if answer.replayed:
            return answer
        created = CreatedWebhook.model_validate_json(answer.body).model_copy(update={"secret": shown(secret)})
        return replace(answer, body=created.model_dump_json().encode())

    async def get(self, principal: Principal, webhook_id: UUID) -> Webhook:
        """One webhook."""
        return await self._db.read(lambda conn: _owned(conn, principal, webhook_id))

    async def find(self, principal: Principal, limit: int, cursor: str | None) -> WebhookPage:
        """A page of the owner's webhooks, newest first. Raises InvalidCursor."""
        after = pagination.decode(cursor, "webhooks", datetime) if cursor else None
        query = _newest(repository.of_owner(principal.owner_id), endpoints.c, after, limit)
        rows, last = pagination.page(await self._db.read(partial(_rows, query=query)), limit)
        return WebhookPage(items=[Webhook.of(row) for row in rows], next_cursor=_cursor("webhooks", last))

    async def edit(
        self, principal: Principal, webhook_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
    ) -> Webhook:
        """Change a webhook if it has one of the versions. One that becomes active is told at once what is pending.

        Raises InsufficientScope, UrlNotAllowed, PreconditionFailed, StorageFull.
        """
        fresh = "url" in changes or changes.get("state") == EndpointState.ACTIVE
        if fresh:
            principal.require(Scope.DOCUMENTS_READ)
        self._reserve.require()
        if "url" in changes:
            self._outbound.check(changes["url"])
        anew = changes.keys() & {"url", "state"}
        forgiven = dict.fromkeys(("failing_since", "probe_at", "disabled_reason")) if anew else {}

        def work(conn: Connection) -> Webhook:
            edited = repository.edit(conn, principal.owner_id, webhook_id, versions, changes | forgiven)
            webhook = _owned(conn, principal, webhook_id)
            if not edited:
                raise errors.PreconditionFailed
            if changes:
                event = WebhookEdited(webhook_id=str(webhook_id), fields=sorted(changes))
                _record(conn, principal, event)
            return webhook

        webhook = await self._write(principal, work)
        if fresh and webhook.state is EndpointState.ACTIVE:
            await self._kind.resume(webhook_id)
        return webhook

    async def delete(self, principal: Principal, webhook_id: UUID, versions: frozenset[int] | None) -> None:
        """Delete a webhook, with its deliveries, if it has one of the versions. Raises PreconditionFailed.

        Many deliveries go in batches, during which it is paused. Interrupted, it stays so until it is deleted again.
        """
        paused = {"state": EndpointState.PAUSED}

        def work(conn: Connection) -> bool:
            _require_version(conn, principal, webhook_id, versions)
            if not repository.remove(conn, webhook_id):
                repository.edit(conn, principal.owner_id, webhook_id, None, paused)
                return False
            _record(conn, principal, WebhookDeleted(webhook_id=str(webhook_id)))
            return True

        while not await self._write(principal, work):
            versions = None  # it is the one that was meant

    async def rotate_secret(
        self, principal: Principal, webhook_id: UUID, request: RotateRequest, versions: frozenset[int] | None = None
    ) -> RotatedSecret:
        """Replace the secret, if the webhook has one of the versions; both sign for a time.

        Raises RotationInProgress, EncryptionKeyMissing, PreconditionFailed.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        stored = self._encryption.encrypt(secret)

        def work(conn: Connection) -> RotatedSecret:
            _require_version(conn, principal, webhook_id, versions)
            valid_for = request.previous_valid_for
            rotated = repository.rotate(conn, principal.owner_id, webhook_id, stored, valid_for)
            webhook = _owned(conn, principal, webhook_id)
            if not rotated:
                raise errors.RotationInProgress
            event = WebhookSecretRotated(webhook_id=str(webhook_id), previous_valid_for=valid_for)
            _record(conn, principal, event)
            return RotatedSecret(secret=shown(secret), previous_valid_until=webhook.previous_valid_until)

        return await self._write(principal, work)

    async def test(self, principal: Principal, webhook_id: UUID) -> Delivery:
        """Send a ping. Raises WebhookInactive."""

        def work(conn: Connection) -> Delivery:
            _able(conn, principal, webhook_id)
            _record(conn, principal, WebhookTested(webhook_id=str(webhook_id)))
            pings = repository.matching(webhook_id).where(deliveries.c.trigger == Trigger.TEST)
            return Delivery.of(_rows(conn, _newest(pings, deliveries.c, None, 0))[0])

        return await self._write(principal, work)

    async def deliveries(
        self, principal: Principal, webhook_id: UUID, filters: DeliveryFilters, limit: int, cursor: str | None
    ) -> DeliveryPage:
        """A page of the deliveries, newest first. Raises InvalidCursor, SearchTooBroad, TooBusy."""
        after = pagination.decode(cursor, "deliveries", datetime) if cursor else None
        query = _newest(repository.matching(webhook_id, **filters.model_dump()), deliveries.c, after, limit)

        def work(conn: Connection) -> list[RowMapping]:
            _owned(conn, principal, webhook_id)
            return _rows(conn, query)

        # By type or document all deliveries to the webhook may be read.
        slow = filters.type is not None or filters.document_id is not None
        rows, last = pagination.page(await (self._db.search if slow else self._db.read)(work), limit)
        return DeliveryPage(items=[Delivery.of(row) for row in rows], next_cursor=_cursor("deliveries", last))

    async def about(self, principal: Principal, event_ids: Sequence[UUID], limit: int) -> list[Delivery]:
        """The deliveries that tell of these events to any webhook, up to `limit`, the latest first."""
        query = repository.about(principal.owner_id, event_ids, limit)
        return [Delivery.of(row) for row in await self._db.read(partial(_rows, query=query))]

    async def delivery(self, principal: Principal, webhook_id: UUID, delivery_id: UUID) -> DeliveryDetails:
        """One delivery, and the attempts to make it."""

        def work(conn: Connection) -> DeliveryDetails:
            _owned(conn, principal, webhook_id)
            row, made = _found(conn, webhook_id, delivery_id), repository.attempts_of(conn, delivery_id)
            numbered = [DeliveryAttempt(number=number, **each) for number, each in enumerate(made, 1)]
            return DeliveryDetails.of(row, attempts=numbered)

        return await self._db.read(work)

    async def message(self, principal: Principal, webhook_id: UUID, delivery_id: UUID) -> bytes:
        """What a delivery sends, to the byte."""

        def work(conn: Connection) -> bytes:
            _owned(conn, principal, webhook_id)
            return repository.message_of(conn, _found(conn, webhook_id, delivery_id)["event_id"])

        return await self._db.read(work)

    async def redeliver(self, principal: Principal, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Deliver the same message again. Raises WebhookInactive, StorageFull."""
        self._reserve.require()

        def work(conn: Connection) -> Delivery:
            _able(conn, principal, webhook_id)
            row = _found(conn, webhook_id, delivery_id)
            told = Told(row["event_id"], principal.owner_id, MessageType(row["type"]), row["document_id"])
            again = self._deliveries.add(conn, webhook_id, told, Trigger.MANUAL)
            event = WebhookRedelivered(webhook_id=str(webhook_id), delivery_id=str(again))
            _record(conn, principal, event)
            return Delivery.of(_found(conn, webhook_id, again))

        return await self._write(principal, work)

    async def recover(self, principal: Principal, webhook_id: UUID, request: RecoverRequest) -> Recovered:
        """Deliver what the webhook would have been told since it was made, and never was.

        Raises WebhookInactive, StorageFull, SearchTooBroad, TooBusy.
        """
        self._reserve.require()

        def search(conn: Connection) -> list[UUID]:
            webhook = _able(conn, principal, webhook_id)
            types, since = webhook.event_types or list(EventType), max(request.since, webhook.created_at)
            missed = recovery.missed(principal.owner_id, webhook_id, types, since, request.until)
            return list(conn.scalars(missed.limit(MOST_RECOVERED + 1)))

        found, count = await self._db.search(search), 0
        for start in range(0, min(len(found), MOST_RECOVERED), RECOVERED_AT_ONCE):
            some = found[start : min(start + RECOVERED_AT_ONCE, MOST_RECOVERED)]
            count += await self._write(principal, partial(self._recover, principal, webhook_id, some))
        return Recovered(deliveries=count, complete=len(found) <= MOST_RECOVERED)

    def _recover(self, principal: Principal, webhook_id: UUID, event_ids: list[UUID], conn: Connection) -> int:
        """Add deliveries of those that are still missed. How many."""
        _able(conn, principal, webhook_id)
        missed = conn.execute(recovery.still_missed(principal.owner_id, webhook_id, event_ids)).all()
        for told in missed:
            self._deliveries.add(conn, webhook_id, Told(*told), Trigger.RECOVERY)
        if missed:
            _record(conn, principal, WebhookRecovered(webhook_id=str(webhook_id), deliveries=len(missed)))
        return len(missed)

    async def _write(self, principal: Principal, work: Callable[[Connection], T]) -> T:
        return await self._db.write(required(principal, work), alone_with=principal.owner_id)


def _record(conn: Connection, principal: Principal, event: Event) -> None:
    events.append(conn, event, user_id=principal.owner_id)


def _owned(conn: Connection, principal: Principal, webhook_id: UUID) -> Webhook:
    row = repository.get(conn, principal.owner_id, webhook_id)
    if row is None:
        raise errors.NotFound
    return Webhook.of(row)


def _require_version(conn: Connection, principal: Principal, webhook_id: UUID, versions: frozenset[int] | None) -> None:
    """Raise NotFound, or PreconditionFailed unless the webhook has one of the versions."""
    webhook = _owned(conn, principal, webhook_id)
    if versions is not None and webhook.version not in versions:
        raise errors.PreconditionFailed


def _able(conn: Connection, principal: Principal, webhook_id: UUID) -> Webhook:
    """The webhook, unless it is told nothing."""
    webhook = _owned(conn, principal, webhook_id)
    if webhook.state is EndpointState.DISABLED:
        raise errors.WebhookInactive
    return webhook


def _found(conn: Connection, webhook_id: UUID, delivery_id: UUID) -> RowMapping:
    rows = _rows(conn, repository.matching(webhook_id).where(deliveries.c.id == delivery_id))
    if not rows:
        raise errors.NotFound
    return rows[0]


def _rows(conn: Connection, query: Select[Any]) -> list[RowMapping]:
    return list(conn.execute(query).mappings())


def _newest(query: Select[Any], columns: Any, after: Keyset | None, limit: int) -> Select[Any]:
    """The rows of a page, newest first, and one more if there is."""
    if after is not None:
        end = tuple_(
            bindparam("at", after.value, columns.created_at.type), bindparam("last", after.id, columns.id.type)
        )
        query = query.where(tuple_(columns.created_at, columns.id) < end)
    return query.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit + 1)


def _cursor(order: str, last: RowMapping | None) -> str | None:
    return pagination.encode(order, last["created_at"], last["id"]) if last is not None else None
