"""Writes what endpoints are to be told, in the transaction of the event: a delivery exists if and only if its event was
committed."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, bindparam, exists, insert, select

from app.auth.models import users
from app.database import Prepared, made_at, now
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.events import Record
from app.events.catalogue.base import Event
from app.events.catalogue.documents import (
    DocumentDeleted,
    DocumentPurged,
    DocumentRestored,
    DocumentStatusChanged,
    DocumentUploaded,
)
from app.events.catalogue.jobs import JobFailed, JobQueued
from app.events.catalogue.webhooks import WebhookTested
from app.jobs import repository as jobs
from app.jobs.models import JobState
from app.webhooks.deliveries import Deliveries, Told
from app.webhooks.models import EndpointState, Trigger, endpoints, messages
from app.webhooks.payloads import (
    MESSAGES,
    DeletedData,
    DeletedDocument,
    DocumentData,
    MessageType,
    PingData,
    WebhookDocument,
    WebhookJob,
)

_OF_OWNER = Prepared(
    select(endpoints.c.id, endpoints.c.event_types, endpoints.c.state)
    .join(users, users.c.id == endpoints.c.owner_id)
    .where(endpoints.c.owner_id == bindparam("owner"), users.c.active)
)
_KEEP = Prepared(insert(messages).values(created_at=now()).inline())

_STATUSES: Mapping[str, MessageType] = {
    Status.COMPLETED: MessageType.DOCUMENT_COMPLETED,
    Status.FAILED: MessageType.DOCUMENT_FAILED,
}
_TYPES: Mapping[type[Event], MessageType] = {
    DocumentUploaded: MessageType.DOCUMENT_UPLOADED,
    JobQueued: MessageType.DOCUMENT_PROCESSING,  # follows the change of the status, with the job at hand
    JobFailed: MessageType.JOB_DEAD,
    DocumentDeleted: MessageType.DOCUMENT_DELETED,
    DocumentRestored: MessageType.DOCUMENT_RESTORED,
    DocumentPurged: MessageType.DOCUMENT_PURGED,
    WebhookTested: MessageType.PING,
}


HEARD = frozenset({*_TYPES, DocumentStatusChanged})
"""The events that may be told."""


def has_endpoints(owner_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """The condition that an owner has any endpoint."""
    return exists().where(endpoints.c.owner_id == owner_id)


def type_of(event: Event) -> MessageType | None:
    """The type of message that tells of an event. None: nobody is told."""
    match event:
        case DocumentStatusChanged(new=status):
            return _STATUSES.get(status)
        case JobFailed(dead=False):
            return None
    return _TYPES.get(type(event))


class Outbox:
    """A listener of events. `base` is what the addresses of results begin with."""

    def __init__(self, deliveries: Deliveries, base: str) -> None:
        self._deliveries = deliveries
        self._base = base

    def __call__(self, conn: Connection, record: Record) -> None:
        """Keep the message for the owner's endpoints that want it, and add a delivery to each but the disabled."""
        kind = type_of(record.event)
        if kind is None or record.user_id is None:
            return
        wanting = [each for each in _OF_OWNER.all(conn, {"owner": record.user_id}) if _wants(each, kind, record)]
        if not wanting:
            return
        data = self._data(conn, record.user_id, record)
        body = MESSAGES[kind](type=kind, timestamp=made_at(record.id), data=data).model_dump_json().encode()
        told = Told(record.id, record.user_id, kind, record.document_id)
        _KEEP.count(conn, {**told._asdict(), "body": body})
        for endpoint in wanting:
            if endpoint["state"] != EndpointState.DISABLED:
                trigger = Trigger.TEST if kind is MessageType.PING else Trigger.EVENT
                self._deliveries.add(conn, endpoint["id"], told, trigger)

    def _data(self, conn: Connection, owner_id: UUID, record: Record) -> DocumentData | DeletedData | PingData:
        match record.event:
            case WebhookTested(webhook_id=webhook_id):
                return PingData(webhook_id=UUID(webhook_id))
            case DocumentDeleted(version=version) | DocumentPurged(version=version):
                assert record.document_id is not None
                assert version is not None, "only with its account, which is told nothing any more"
                return DeletedData(document=DeletedDocument(id=record.document_id, version=version))
        assert record.document_id is not None
        document = documents.get(conn, owner_id, record.document_id)
        assert document is not None, "it was changed in this transaction"
        job = jobs.get(conn, document.job_id) if document.job_id else None
        succeeded = job is not None and job.state is JobState.SUCCEEDED
        return DocumentData(
            document=WebhookDocument.model_validate(document),
            job=WebhookJob.of(job) if job else None,
            result_url=f"{self._base}/documents/{document.id}/results/{job.processor}" if job and succeeded else None,
        )


def _wants(endpoint: dict[str, Any], kind: MessageType, record: Record) -> bool:
    if isinstance(record.event, WebhookTested):
        return str(endpoint["id"]) == record.event.webhook_id
    return endpoint["event_types"] is None or kind in endpoint["event_types"]
