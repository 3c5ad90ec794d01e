"""Processing many documents in one call, in parts: between two of them others write."""

import asyncio
import time
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import idempotency
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents import listing
from app.documents.schemas import Filters, Sort
from app.documents.service import owned
from app.errors import AppError, TooBusy
from app.idempotency import StoredResponse
from app.processing.acceptance import Acceptance, RequestedWork
from app.processing.schemas import MAX_BATCH, BatchAccepted, BatchRequest, BatchResponse, BatchSkipped, Force
from app.quotas import Quotas
from app.settings import Settings
from app.telemetry import faults
from app.web import pagination

_ORDER = "batch"  # the oldest first
PART = 20  # documents in one transaction: 10 ms on SQLite, some 100 ms on PostgreSQL, while other writes wait
_PATIENCE = 20.0  # seconds that a part waits for other writes of its owner
_PAUSE = 0.1  # seconds


class _Chosen(BaseModel):
    """The documents of a batch. With a key they are stored, so that a request that is repeated has the same."""

    ids: list[UUID]
    next_cursor: str | None = None


class BatchAnswer(NamedTuple):
    """What became of a batch, and the jobs that this call has created. `replayed`: nothing else was done."""

    response: BatchResponse
    started: list[UUID]
    replayed: bool


class Batches:
    """Accepts many documents for processing."""

    def __init__(self, db: Database, acceptance: Acceptance, quotas: Quotas, settings: Settings) -> None:
        self._db = db
        self._acceptance = acceptance
        self._quotas = quotas
        self._settings = settings
        self.wake = acceptance.wake

    async def process(self, principal: Principal, request: BatchRequest, key: str | None) -> BatchAnswer:
        """Accept each document for processing as if it were the only one, or say why not.

        PART documents are accepted in one transaction. A failure midway leaves those before it accepted: the request
        may be repeated, with its key or without. Raises UnknownProcessor, ValidationFailed, InvalidCursor,
        IdempotencyKeyReused, SearchTooBroad, TooBusy.
        """
        self._quotas.reserve.require()
        wanted = self._acceptance.permitted(principal, request, for_many=True)
        body = request.model_copy(update={"processor": wanted.processor}).model_dump(mode="json")

        async def once(number: int, work: idempotency.Work) -> StoredResponse:
            part = idempotency.part_of(key, number)
            args = (self._settings.idempotency_ttl, "POST", "/documents/process-batch", body)
            keyed = idempotency.keyed(principal.owner_id, part, *args)
            unit = required(principal, partial(idempotency.once, request=keyed, work=work))
            give_up_at = time.monotonic() + _PATIENCE
            while True:
                try:
                    return await self._db.write(unit, alone_with=principal.owner_id)
                except TooBusy:
                    if time.monotonic() > give_up_at:
                        raise
                    await asyncio.sleep(_PAUSE)  # a queue that is full refuses at once

        chosen = await self._chosen(principal, request)
        started, replayed = list[UUID](), False
        if key:
            stored = await once(0, lambda _: StoredResponse(200, chosen.model_dump_json().encode(), ""))
            chosen, replayed = _Chosen.model_validate_json(stored.body), stored.replayed
        response = BatchResponse(accepted=[], skipped=[], next_cursor=chosen.next_cursor)
        for number, start in enumerate(range(0, len(chosen.ids), PART), 1):
            ids = chosen.ids[start : start + PART]
            answer = await once(number, partial(self._accept, principal.owner_id, ids, wanted, force=request.force))
            faults.hit("batch.after_part")
            part = BatchResponse.model_validate_json(answer.body)
            response.accepted += part.accepted
            response.skipped += part.skipped
            if not answer.replayed:
                replayed = False
                started += [each.job_id for each in part.accepted if each.started]
        return BatchAnswer(response, started, replayed)

    async def _chosen(self, principal: Principal, request: BatchRequest) -> _Chosen:
        if not request.by_filter:
            return _Chosen(ids=list(dict.fromkeys(request.document_ids)))
        after = pagination.decode(request.cursor, _ORDER, datetime) if request.cursor else None
        filters = Filters.model_construct(**dict(request.filter), sort=Sort.CREATED_AT)
        rows = await self._db.search(
            partial(listing.page, owner_id=principal.owner_id, filters=filters, after=after, limit=MAX_BATCH + 1)
        )
        found, last = pagination.page(rows, MAX_BATCH)
        end = pagination.encode(_ORDER, last.created_at, last.id) if last else None
        return _Chosen(ids=[each.id for each in found], next_cursor=end)

    def _accept(
        self, owner_id: UUID, ids: list[UUID], wanted: RequestedWork, conn: Connection, *, force: Force
    ) -> StoredResponse:
        response = BatchResponse(accepted=[], skipped=[], next_cursor=None)
        for each in ids:
            try:
                document = owned(conn, owner_id, each)
                accepted = self._acceptance.accept(conn, document, wanted, uuid7(), force=force)
            except AppError as refusal:
                skipped = BatchSkipped(document_id=each, code=refusal.code, detail=refusal.detail)
                response.skipped.append(skipped)
            else:
                item = BatchAccepted(document_id=each, job_id=accepted.job.id, started=accepted.started)
                response.accepted.append(item)
        return StoredResponse(200, response.model_dump_json().encode(), "")
