"""Accepting work, and what its owner can see and do of it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import orjson
import structlog
from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import errors, idempotency
from app.auth.principal import Principal
from app.database import Database, Retry
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.documents.schemas import Document
from app.documents.service import owned
from app.events.catalogue import JobQueued
from app.idempotency import StoredResponse
from app.jobs import repository as jobs, settlement
from app.jobs.kinds import Kinds
from app.jobs.repository import NewJob
from app.jobs.watch import JobWatch
from app.processing import results
from app.processing.kind import KIND, InputFile, Work, queue_of
from app.processing.schemas import Job, JobFilters, JobPage, ProcessRequest, ProcessResponse, Result, ResultList
from app.processors.base import Processor
from app.settings import Settings
from app.telemetry import faults
from app.web import pagination
from app.web.body import RETRY_AFTER
from app.web.problems import invalid

T = TypeVar("T")


class _RequestedWork(NamedTuple):
    """A processor's name and version, and its complete params: what a client asks for, whatever the document."""

    processor: str
    version: str
    params: dict[str, Any]


class ProcessingService:
    """Accepts documents for processing, and shows jobs and results to their owner."""

    def __init__(
        self,
        db: Database,
        kinds: Kinds,
        processors: Mapping[str, Processor[Any]],
        watch: JobWatch,
        wake: Callable[[UUID], Awaitable[None]],
        settings: Settings,
    ) -> None:
        """`wake` has somebody look for a job that was accepted; the answer need not wait for it."""
        self._db = db
        self._kinds = kinds
        self._processors = processors
        self._watch = watch
        self._settings = settings
        self.wake = wake

    async def process(
        self, principal: Principal, document_id: UUID, request: ProcessRequest, key: str | None
    ) -> tuple[StoredResponse, UUID | None]:
        """Accept a document for processing, in one transaction: key, document, job and events, or nothing.

        Returns the answer, and the job to `wake` a worker for if this call has created one.
        Raises NotFound, UnknownProcessor, ValidationFailed, UploadIncomplete, JobInProgress, IdempotencyKeyReused.
        """
        wanted = self._requested(request)
        body, path = request.model_dump(mode="json"), f"/documents/{document_id}/process"
        keyed = idempotency.keyed(principal.owner_id, key, self._settings.idempotency_ttl, "POST", path, body)

        job_id = uuid7()

        def accept(conn: Connection) -> StoredResponse:
            document = owned(conn, principal.owner_id, document_id)  # before a replay: the right to it may be gone
            answer = idempotency.once(
                conn, keyed, lambda conn: self._accept(conn, document, wanted, job_id, force=request.force)
            )
            faults.hit("process.in_transaction")
            return answer

        answer = await self._db.write(accept)
        faults.hit("process.after_commit")
        structlog.contextvars.bind_contextvars(job_id=answer.location.rpartition("/")[2])
        started = answer.status == 202 and not answer.replayed
        return answer, job_id if started else None

    async def result(self, principal: Principal, document_id: UUID) -> Result:
        """The current result. Raises NotFound, ResultNotReady, ProcessingFailed."""
        document, result = await self._read(principal, document_id, results.latest)
        if document.status is Status.FAILED and document.error:
            raise errors.ProcessingFailed(document.error.detail, error=document.error.model_dump())
        if document.status is not Status.COMPLETED or result is None:
            raise errors.ResultNotReady(headers=RETRY_AFTER if document.status is Status.PROCESSING else None)
        return result

    async def results(self, principal: Principal, document_id: UUID) -> ResultList:
        """The last good result of each processor, whatever the document's state. Raises NotFound."""
        _, items = await self._read(principal, document_id, results.of_document)
        return ResultList(items=items)

    async def result_of(self, principal: Principal, document_id: UUID, processor: str) -> Result:
        """The last good result of one processor, whatever the document's state. Raises NotFound."""
        _, result = await self._read(principal, document_id, partial(results.of_processor, processor=processor))
        if result is None:
            raise errors.NotFound
        return result

    async def _read(
        self, principal: Principal, document_id: UUID, read: Callable[[Connection, UUID], T]
    ) -> tuple[Document, T]:
        return await self._db.read(lambda conn: (owned(conn, principal.owner_id, document_id), read(conn, document_id)))

    async def job(self, principal: Principal, job_id: UUID, wait: float = 0) -> Job:
        """The job; up to `wait` seconds later if it is not finished before. Raises NotFound."""
        deadline = time.monotonic() + wait
        while True:
            job = await self._db.read(lambda conn: jobs.get(conn, job_id, principal.owner_id))
            if job is None:
                raise errors.NotFound
            left = deadline - time.monotonic()
            if not job.state.live or left <= 0 or self._watch.closed:
                return Job.of(job)
            await self._watch.wait(job_id, left)

    async def jobs(self, principal: Principal, filters: JobFilters, limit: int, cursor: str | None) -> JobPage:
        """The owner's jobs, newest first. Raises InvalidCursor."""
        after = pagination.decode(cursor, "jobs", datetime) if cursor else None
        wanted = filters.model_dump(exclude={"processor"})
        wanted["queue_prefix"] = queue_of(filters.processor) if filters.processor else None
        rows = await self._db.read(lambda conn: jobs.page(conn, principal.owner_id, after, limit + 1, **wanted))
        page, last = pagination.page(rows, limit)
        end = pagination.encode("jobs", last.created_at, last.id) if last else None
        return JobPage(items=[Job.of(job) for job in page], next_cursor=end)

    async def cancel(self, principal: Principal, job_id: UUID) -> Job:
        """End a live job now; a worker that has it stops at its next heartbeat. Raises NotFound, JobFinished."""

        def unit(conn: Connection) -> Job:
            job = settlement.cancel(conn, self._kinds, principal.owner_id, job_id)
            if job is None:
                raise errors.JobFinished if jobs.get(conn, job_id, principal.owner_id) else errors.NotFound
            return Job.of(job)

        job = await self._db.write(unit)
        self._watch.notify(job_id)
        return job

    def _requested(self, request: ProcessRequest) -> _RequestedWork:
        """Check what is asked for, and fill in its defaults, so that equal work compares equal."""
        processor = self._processors.get(request.processor)
        if processor is None:
            known = ", ".join(sorted(self._processors))
            raise errors.UnknownProcessor(f"The processors are: {known}.")
        try:
            params = processor.params.model_validate(request.params)
        except ValidationError as error:
            raise invalid(error, "params") from None
        if b"\\u0000" in orjson.dumps(request.params):
            raise errors.ValidationFailed(
                "Text must not contain NUL.", errors=[{"detail": "contains NUL", "pointer": "/params"}]
            )
        return _RequestedWork(processor.name, processor.version, params.model_dump(mode="json"))

    def _accept(
        self, conn: Connection, document: Document, wanted: _RequestedWork, job_id: UUID, *, force: bool
    ) -> StoredResponse:
        """Move the document on and create its job, unless the work is under way or done.

        Raises Retry when another transaction moved the document first, and what `_current` raises.
        """
        if current := _current(conn, document, wanted, force=force):
            return _stored(current)
        moved = documents.move(conn, document.id, document.status, Status.PROCESSING, job_id=job_id)
        if moved is None:
            raise Retry
        file = InputFile.model_validate(documents.file_of(conn, document.id))
        new = NewJob(
            id=job_id,
            kind=KIND,
            queue=queue_of(wanted.processor, wanted.version),
            args=Work(**wanted._asdict(), file=file).model_dump(),
            owner_id=document.owner_id,
            max_tries=self._settings.job_max_tries,
            key=f"document:{document.id}",
            document_id=document.id,
        )
        job = jobs.enqueue(conn, new, JobQueued(processor=wanted.processor))
        return _stored(ProcessResponse(document=moved, job=Job.of(job), started=True))


def _stored(response: ProcessResponse) -> StoredResponse:
    body = response.model_dump_json().encode()
    return StoredResponse(202 if response.started else 200, body, f"/jobs/{response.job.id}")


def _current(conn: Connection, document: Document, wanted: _RequestedWork, *, force: bool) -> ProcessResponse | None:
    """The running job for this very work, or the one that made a result of it; None when a new one is called for.

    Raises UploadIncomplete, JobInProgress.
    """
    if document.status is Status.INITIATED:
        raise errors.UploadIncomplete
    if document.status is Status.PROCESSING and document.job_id is not None:
        job = jobs.get(conn, document.job_id)
        assert job is not None
        if (job.args["processor"], job.args["params"]) != (wanted.processor, wanted.params):
            raise errors.JobInProgress
        return ProcessResponse(document=document, job=Job.of(job), started=False)
    if document.status is not Status.COMPLETED or force:
        return None
    result = results.of_processor(conn, document.id, wanted.processor)
    if result is None or (result.processor_version, result.params, result.input_sha256) != (
        wanted.version,
        wanted.params,
        document.sha256,
    ):
        return None
    job = jobs.get(conn, result.job_id)
    return ProcessResponse(document=document, job=Job.of(job), started=False) if job else None
