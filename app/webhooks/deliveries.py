"""Adding deliveries, each with the job that makes it."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, insert
from uuid_utils.compat import uuid7

from app.database import Prepared, after_commit, now
from app.events.catalogue.jobs import JobQueued
from app.jobs import repository as jobs
from app.jobs.repository import NewJob
from app.jobs.turns import Turns
from app.webhooks.models import DeliveryState, Trigger, deliveries
from app.webhooks.payloads import MessageType

KIND = QUEUE = "deliver"

_ADD = Prepared(insert(deliveries).values(state=DeliveryState.PENDING, created_at=now()).inline())


class Told(NamedTuple):
    """What is to be delivered, and whose it is."""

    event_id: UUID
    owner_id: UUID
    type: MessageType
    document_id: UUID | None


class Deliveries:
    """Adds deliveries. `wake` has this process look for them after the commit; others look once a second."""

    def __init__(self, turns: Turns, wake: Callable[[], None], *, max_tries: int) -> None:
        self._turns = turns
        self._wake = wake
        self._max_tries = max_tries

    def add(self, conn: Connection, endpoint_id: UUID, told: Told, trigger: Trigger) -> UUID:
        """Add a delivery that is due now. Returns its id."""
        delivery_id = uuid7()
        row = {"id": delivery_id, "endpoint_id": endpoint_id, "event_id": told.event_id, "trigger": trigger}
        _ADD.count(conn, row)
        document_id = str(told.document_id) if told.document_id else None
        args = {"webhook_id": str(endpoint_id), "trigger": trigger, "type": told.type, "document_id": document_id}
        # Without its document: that is deleted before it is told so.
        new = NewJob(delivery_id, KIND, QUEUE, args, told.owner_id, self._max_tries)
        jobs.enqueue(conn, new, JobQueued(), self._turns.head(QUEUE))
        after_commit(conn, self._wake)
        return delivery_id
