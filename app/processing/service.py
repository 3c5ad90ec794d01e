"""Accepting work, and what its owner can see and do of it."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import idempotency
from app.database import Database, Retry
from app.dispatch.base import Dispatcher
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.documents.schemas import Document, Failure
from app.documents.service import owned
from app.errors import (
    JobFinished,
    JobInProgress,
    NotFound,
    ProcessingFailed,
    ResultNotReady,
    UnknownProcessor,
    UploadIncomplete,
)
from app.idempotency import KeyScope, StoredResponse
from app.processing import repository, results, settlement
from app.processing.repository import Work
from app.processing.schemas import Job, JobFilters, JobPage, Processing, Result, Wanted
from app.processing.watch import JobWatch
from app.processors.base import Processor
from app.settings import Settings
from app.telemetry import faults
from app.web import pagination
from app.web.problems import invalid
from app.web.route import RETRY_AFTER


class Accepted(NamedTuple):
    """An answer, and the job to be hinted at if this call has created one."""

    answer: StoredResponse
    job_id: UUID | None


class ProcessingService:
    def __init__(
        self,
        db: Database,
        dispatcher: Dispatcher,
        processors: Mapping[str, Processor[Any]],
        watch: JobWatch,
        settings: Settings,
    ) -> None:
        self._db = db
        self._processors = processors
        self._watch = watch
        self._settings = settings
        self._dispatcher = dispatcher
        self.send_hint = dispatcher.send

    async def process(self, owner_id: UUID, document_id: UUID, wanted: Wanted, key: str | None) -> Accepted:
        """Accept a document for processing, in one transaction: key, document, job and events, or nothing.

        Raises NotFound, UnknownProcessor, ValidationFailed, UploadIncomplete, JobInProgress, RequestInProgress,
        IdempotencyKeyReused.
        """
        work = self._work(wanted)
        scope = KeyScope(owner_id, key, self._settings.idempotency_ttl) if key else None
        body = wanted.model_dump(mode="json")
        fingerprint = idempotency.fingerprint("POST", f"/documents/{document_id}/process", body)

        def accept(conn: Connection) -> Accepted:
            document = owned(conn, owner_id, document_id)  # before a replay: the right to it may be gone
            if scope and (known := idempotency.lookup(conn, scope, fingerprint)):
                return Accepted(known, None)
            current = _current(conn, document, work, force=wanted.force)
            processing = current or self._start(conn, document, work)
            answer = _answer(processing)
            if scope:
                idempotency.store(conn, scope, fingerprint, answer)
            faults.hit("process.in_transaction")
            return Accepted(answer, processing.job.id if processing.started else None)

        accepted = await self._db.write(accept)
        faults.hit("process.after_commit")
        structlog.contextvars.bind_contextvars(job_id=accepted.answer.location.rpartition("/")[2])
        return accepted

    async def result(self, owner_id: UUID, document_id: UUID) -> Result:
        """The current result. Raises NotFound, ResultNotReady, ProcessingFailed."""

        def work(conn: Connection) -> tuple[Document, Result | None]:
            return owned(conn, owner_id, document_id), results.current(conn, document_id)

        document, result = await self._db.read(work)
        if document.status is Status.FAILED and document.error:
            raise ProcessingFailed(document.error.detail, error=document.error.model_dump())
        if document.status is not Status.COMPLETED or result is None:
            raise ResultNotReady(headers=RETRY_AFTER if document.status is Status.PROCESSING else None)
        return result

    async def job(self, owner_id: UUID, job_id: UUID, wait: float = 0) -> Job:
        """The job; up to `wait` seconds later if it is not finished before. Raises NotFound."""
        deadline = time.monotonic() + wait
        while True:
            job = await self._db.read(lambda conn: repository.get(conn, job_id, owner_id), brief=True)
            if job is None:
                raise NotFound
            left = deadline - time.monotonic()
            if not job.state.live or left <= 0 or self._watch.closed:
                return job
            await self._watch.wait(job_id, left)

    async def jobs(self, owner_id: UUID, filters: JobFilters, limit: int, cursor: str | None) -> JobPage:
        """The owner's jobs, newest first. Raises InvalidCursor."""
        after = pagination.decode(cursor, "jobs", datetime) if cursor else None
        rows = await self._db.read(lambda conn: repository.page(conn, owner_id, filters, after, limit + 1))
        items, last = pagination.page(rows, limit)
        return JobPage(items=items, next_cursor=pagination.encode("jobs", last.created_at, last.id) if last else None)

    async def cancel(self, owner_id: UUID, job_id: UUID) -> Job:
        """End a live job now; a worker that has it stops at its next heartbeat. Raises NotFound, JobFinished."""

        def work(conn: Connection) -> Job:
            error = Failure(code="job-cancelled", detail="The job was cancelled.")
            job = repository.cancel(conn, owner_id, job_id, error)
            if job is None:
                raise JobFinished if repository.get(conn, job_id, owner_id) else NotFound
            settlement.cancel(conn, job)
            return job

        job = await self._db.write(work)
        self._watch.notify(job_id)
        return job

    def _work(self, wanted: Wanted) -> Work:
        """Check what is wanted, and fill in its defaults, so that equal work compares equal."""
        processor = self._processors.get(wanted.processor)
        if processor is None:
            known = ", ".join(sorted(self._processors))
            raise UnknownProcessor(f"The processors are: {known}.")
        try:
            params = processor.params.model_validate(wanted.params)
        except ValidationError as error:
            raise invalid(error, "params") from None
        return Work(processor.name, processor.version, params.model_dump(mode="json"))

    def _start(self, conn: Connection, document: Document, work: Work) -> Processing:
        """Move the document on and create its job. Raises Retry when another transaction moved it first."""
        job_id = uuid7()
        moved = documents.move(
            conn,
            document.id,
            document.status,
            Status.PROCESSING,
            actor=f"user:{document.owner_id}",
            job_id=job_id,
        )
        if moved is None:
            raise Retry
        hint_after = self._settings.lease_seconds if self._dispatcher.room else 0
        max_tries = self._settings.job_max_tries
        job = repository.enqueue(conn, job_id, document, work, max_tries=max_tries, hint_after=hint_after)
        return Processing(document=moved, job=job, started=True)


def _current(conn: Connection, document: Document, work: Work, *, force: bool) -> Processing | None:
    """The running or finished job that is this very work; None when a new one is called for.

    Raises UploadIncomplete, JobInProgress.
    """
    if document.status is Status.INITIATED:
        raise UploadIncomplete
    if document.status not in (Status.PROCESSING, Status.COMPLETED) or document.job_id is None:
        return None
    job = repository.get(conn, document.job_id)
    assert job is not None
    same = (job.processor, job.params) == (work.processor, work.params)
    if document.status is Status.PROCESSING:
        if not same:
            raise JobInProgress
        return Processing(document=document, job=job, started=False)
    if force or not same or job.processor_version != work.version:
        return None
    return Processing(document=document, job=job, started=False)


def _answer(processing: Processing) -> StoredResponse:
    body = processing.model_dump_json().encode()
    return StoredResponse(202 if processing.started else 200, body, f"/jobs/{processing.job.id}")
