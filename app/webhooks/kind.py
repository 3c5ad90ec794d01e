"""The kind of job that makes a delivery: send the message, and write down what came of it."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from random import uniform
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import Connection
from standardwebhooks import Webhook

from app import events
from app.database import Database, after_commit
from app.encryption import Encryption
from app.errors import AppError, EncryptionKeyMissing, TooBusy
from app.events.catalogue.webhooks import WebhookDelivered, WebhookDisabled, WebhookFailed
from app.events.failure import Failure
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Postponed, Report, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.limiter import Limiter
from app.outbound import Answer, Outbound, OutboundFailed
from app.settings import Settings
from app.telemetry import faults, metrics
from app.webhooks import repository
from app.webhooks.deliveries import KIND, QUEUE
from app.webhooks.models import RESPONSE, DeliveryState, EndpointState, Trigger
from app.webhooks.repository import Place, Sending

log = structlog.get_logger()

PREFIX = "whsec_"
JITTER = 1.2  # the longest that a delay becomes, so that not all come back at once
_LANE_WAIT = 5.0  # seconds that a delivery waits for others to the same endpoint, before it gives up its capacity
# Seconds that a delivery to a failing endpoint is put off: the longer, the more of them there are, so that all together
# they come a few times a second.
_PUT_OFF, _PUT_OFF_EACH, _COUNTED = 60.0, 0.5, 2000
_PAUSED = 6 * 3600.0  # seconds that deliveries to a paused endpoint are put off; once it is active they are advanced
_PROBE_INTERVAL = 60.0  # seconds between two attempts to reach a failing endpoint, at the most
_OVERLOADED = 60.0  # seconds, at the least, after which an endpoint that asks for less is tried again
_RETRY_AFTER = 3600.0  # seconds that an endpoint may ask for in any case
_MARGIN = 10.0  # seconds from the end of a request to the commit of what came of it

_UNEXPECTED = Failure(code="unexpected", detail="The request failed for a reason that is not known.")
_GONE = Failure(code="gone", detail="The endpoint answered 410: it wants no more.")
_DELETED = Failure(code="webhook-deleted", detail="The webhook was deleted.")
_DISABLED = Failure(code="webhook-disabled", detail="The webhook is disabled.")


class Attempt(NamedTuple):
    """A request that was sent, or was to be. Without a URL, nobody knows."""

    at: datetime
    url: str = ""
    duration_ms: int | None = None
    status: int | None = None
    response: str | None = None
    failing_for: float | None = None
    """Seconds for which there had been nothing but failures."""

    wait: float = 0.0
    """Seconds for which the endpoint asks to be left alone."""


class DeliverKind:
    """Kind `deliver`. An endpoint gets a few requests at once; while it fails one, and what its owner asks for."""

    name = KIND
    queues: Mapping[str, int | None] = MappingProxyType({QUEUE: None})

    def __init__(self, db: Database, outbound: Outbound, encryption: Encryption, settings: Settings) -> None:
        self._db = db
        self._outbound = outbound
        self._encryption = encryption
        self._schedule = settings.webhook_delays
        self._disable_after = settings.webhook_disable_after
        self._at_once = settings.webhook_endpoint_concurrency
        self._longest = settings.webhook_timeout + _MARGIN  # seconds of an attempt
        self._lanes: WeakValueDictionary[UUID, Limiter] = WeakValueDictionary()
        self._resuming: set[asyncio.Task[None]] = set()
        self.timeout = self._longest + _LANE_WAIT

    def backoff(self, attempt: int) -> float:
        """Seconds as WEBHOOK_RETRY_SCHEDULE has them, each up to a fifth longer."""
        return self._schedule[min(attempt, len(self._schedule) - 1)] * uniform(1, JITTER)  # noqa: S311 - spreads load

    async def run(self, job: Job, report: Report) -> Outcome:
        """Send the message, unless others to this endpoint come first."""
        endpoint_id = UUID(job.args["webhook_id"])
        lane = self._lanes.setdefault(endpoint_id, Limiter(self._at_once, _LANE_WAIT))
        faults.hit("deliver.after_claim")
        try:
            async with lane.acquire(job.id):
                return await self._deliver(job, endpoint_id)
        except EncryptionKeyMissing as error:
            return Retryable(Failure(code=error.code, detail=error.detail))
        except TooBusy:
            return _postponed(_LANE_WAIT)
        except AppError as error:  # nothing was sent
            log.warning("webhook.not_sent", reason=error.code)
            return _postponed(_LANE_WAIT)

    async def _deliver(self, job: Job, endpoint_id: UUID) -> Outcome:
        found = await self._db.read(partial(repository.sending, delivery_id=job.id))
        if found is None:
            return Failed(_DELETED)
        match found.state:
            case EndpointState.DISABLED:
                return Failed(_DISABLED)
            case EndpointState.PAUSED:
                return _postponed(_PAUSED)
        asked_for = job.tries == 1 and job.args["trigger"] in {Trigger.MANUAL, Trigger.TEST}
        if found.failing_for is not None and not asked_for:
            probe = partial(repository.begin_probe, endpoint_id=endpoint_id, longest=self._longest)
            if found.probing or not await self._db.write(probe):
                pending = await self._db.read(partial(repository.pending, endpoint_id=endpoint_id, at_most=_COUNTED))
                return _postponed(max(_PUT_OFF, _PUT_OFF_EACH * pending))
        return await self._send(job, found)

    async def _send(self, job: Job, found: Sending) -> Outcome:
        at, began = datetime.now(UTC), time.monotonic()
        headers = signed(found.event_id, at, found.body, self._secrets(found))
        answer = await self._post(job, found, headers)
        faults.hit("deliver.after_send")
        duration = round((time.monotonic() - began) * 1000)
        attempt = Attempt(at, found.url, duration, failing_for=found.failing_for)
        if isinstance(answer, Failure):
            return Retryable(answer, self._delay(job.tries, answer), attempt)
        attempt = attempt._replace(status=answer.status, response=answer.text[:RESPONSE].replace("\0", ""))
        if 200 <= answer.status < 300:
            return Succeeded(attempt)
        if answer.status == 410:
            return Failed(_GONE, attempt)
        error = Failure(code="refused", detail=f"The endpoint answered {answer.status}.")
        delay = self._delay(job.tries, error, answer)
        return Retryable(error, delay, attempt._replace(wait=min(delay, answer.retry_after or 0.0)))

    async def _post(self, job: Job, found: Sending, headers: Mapping[str, str]) -> Answer | Failure:
        """Send the request, and return what came of it. Raises AppError if it was not sent."""
        try:
            return await self._outbound.post(found.url, found.body, headers, job.owner_id)
        except AppError:
            raise
        except OutboundFailed as refused:
            return Failure(code=refused.code, detail=refused.detail)
        except Exception as broken:  # noqa: BLE001 - whatever the server of a stranger leads to counts against it
            # Its text, and a traceback, could have the URL.
            log.warning("webhook.request_broke", error=type(broken).__name__)
            return _UNEXPECTED

    def _secrets(self, found: Sending) -> list[bytes]:
        """Those that sign, the newest first. Raises EncryptionKeyMissing."""
        stored = [found.secret, found.previous_secret]
        return [self._encryption.decrypt(each) for each in stored if each is not None]

    def _delay(self, tries: int, error: Failure, answer: Answer | None = None) -> float:
        """Seconds to the next attempt: those of the schedule, or more if the endpoint is overloaded or asks for it."""
        delay = self.backoff(tries)
        if error.code == "timeout" or (answer and answer.status == 429):
            delay = max(delay, _OVERLOADED)
        asked = answer.retry_after if answer else None
        return delay if asked is None else max(delay, min(asked, max(2 * delay, _RETRY_AFTER)))

    def settled(self, conn: Connection, job: Job, outcome: Outcome) -> None:
        """Record the attempt, and what it says of the endpoint."""
        error = outcome.error if isinstance(outcome, Failed | Retryable) else None
        attempt = outcome.value if isinstance(outcome, Succeeded | Failed | Retryable) else None
        if attempt is None:
            if isinstance(outcome, Retryable):  # nobody knows whether it was sent
                attempt = Attempt(job.locked_at or job.run_at)
            else:
                return
        values = attempt._asdict() | {"error": error.model_dump() if error else None}
        del values["failing_for"], values["wait"]
        if repository.record_attempt(conn, job.id, job.fence, **values) and attempt.url:
            self._judge(conn, job, attempt, error)

    def _judge(self, conn: Connection, job: Job, attempt: Attempt, error: Failure | None) -> None:
        """Write what an attempt says of the endpoint."""
        endpoint_id = UUID(job.args["webhook_id"])
        outcome = "delivered" if error is None else "refused" if attempt.status else "unreachable"
        after_commit(conn, metrics.webhook_attempts.labels(outcome).inc)
        if error is not None:
            self._fail(conn, job, endpoint_id, attempt, error)
        elif repository.forgive(conn, endpoint_id):
            after_commit(conn, partial(self._begin_to_resume, endpoint_id))

    def _fail(self, conn: Connection, job: Job, endpoint_id: UUID, attempt: Attempt, error: Failure) -> None:
        """Let others wait, for the longer the longer it fails, or disable it."""
        probe_in = max(attempt.wait, min(_PROBE_INTERVAL, (attempt.failing_for or 0.0) / 2))
        repository.fail(conn, endpoint_id, attempt.url, probe_in)
        longest = 0.0 if error is _GONE else self._disable_after
        reason = error.code if error is _GONE else "failing"
        if repository.disable(conn, endpoint_id, attempt.url, reason, longest):
            disabled = WebhookDisabled(webhook_id=str(endpoint_id), reason=reason)
            events.append(conn, disabled, user_id=job.owner_id)
            after_commit(conn, metrics.webhooks_disabled.inc)

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """End the delivery, and tell its document's timeline. The delivery stays, and its job goes."""
        state = _state_after(end)
        if repository.finish(conn, job.id, state):
            about = {"webhook_id": job.args["webhook_id"], "delivery_id": str(job.id), "type": job.args["type"]}
            document_id = job.args["document_id"] and UUID(job.args["document_id"])
            event = (
                WebhookFailed(**about, attempt=job.tries, error=end.error)
                if end.error
                else WebhookDelivered(**about, attempt=job.tries)
            )
            events.append(conn, event, user_id=job.owner_id, document_id=document_id)
        jobs.remove(conn, job.id)

    async def resume(self, endpoint_id: UUID) -> None:
        """Have all deliveries that wait for later made as soon as may be: the first of them now, the others by and by.
        One that is left out comes by itself."""
        last = await self._db.write(partial(repository.advance, endpoint_id=endpoint_id, after=None))
        if last:
            self._begin_to_resume(endpoint_id, last)

    def _begin_to_resume(self, endpoint_id: UUID, after: Place | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._resume(endpoint_id, after))
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, endpoint_id: UUID, after: Place | None) -> None:
        try:
            while after := await self._db.write(partial(repository.advance, endpoint_id=endpoint_id, after=after)):
                pass
        except AppError as error:
            log.warning("webhook.not_resumed", webhook_id=str(endpoint_id), reason=error.code)


def _postponed(seconds: float) -> Postponed:
    return Postponed(seconds * uniform(1, 2))  # noqa: S311 - spreads load, keeps no secret


def _state_after(end: End) -> DeliveryState:
    if end.state is JobState.SUCCEEDED:
        return DeliveryState.DELIVERED
    discarded = end.state is JobState.CANCELLED or end.error is _DISABLED
    return DeliveryState.DISCARDED if discarded else DeliveryState.FAILED


def signed(event_id: UUID, at: datetime, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers of a request, with a signature under each of the secrets (Standard Webhooks 1.0)."""
    signatures = [Webhook(secret).sign(str(event_id), at, body.decode()) for secret in secrets]
    return {
        "content-type": "application/json",
        "webhook-id": str(event_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def shown(secret: bytes) -> str:
    """A secret as its owner gets it, and as libraries take it."""
    return PREFIX + b64encode(secret).decode()
