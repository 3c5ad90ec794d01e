"""Accepting work, and what its owner can see and do of it."""

import time
from functools import cached_property, partial
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Connection, bindparam, exists, select
from uuid_utils.compat import uuid7

from app import errors, idempotency
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database, Prepared
from app.documents.file_versions import sql as file_versions
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.documents.schemas import Document
from app.documents.service import owned
from app.idempotency import StoredResponse
from app.jobs import listing, settlement
from app.jobs.kinds import Kinds
from app.jobs.models import Job as StoredJob, jobs as job_table
from app.jobs.pauses import Pauses
from app.jobs.schemas import Job
from app.jobs.watch import JobWatch
from app.processing import jobs as numbered_jobs, previous, result_files, results
from app.processing.acceptance import Acceptance
from app.processing.models import ResultFile
from app.processing.queues import KIND, queue_of
from app.processing.results import StoredResult
from app.processing.schemas import JobFilters, JobPage, ProcessorList, ProcessRequest, ProcessResponse
from app.processing.stages.pipeline import AD_HOC
from app.quotas import Quotas
from app.settings import Settings
from app.telemetry import faults
from app.web.body import RETRY_AFTER

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Read(Protocol[T_co]):
    """Reads what belongs to the document's current file, or to the previous one of this number."""

    def __call__(self, conn: Connection, document_id: UUID, /, *, number: int | None) -> T_co: ...


class ProcessingService:
    """Accepts documents for processing, and shows jobs and results to their owner."""

    def __init__(
        self,
        db: Database,
        kinds: Kinds,
        acceptance: Acceptance,
        watch: JobWatch,
        *,
        pauses: Pauses,
        quotas: Quotas,
        settings: Settings,
    ) -> None:
        self._db = db
        self._kinds = kinds
        self._acceptance = acceptance
        self._watch = watch
        self._quotas = quotas
        self._settings = settings
        self.wake = acceptance.wake
        self._pauses = pauses

    @property
    def offered(self) -> ProcessorList:
        """The processors, as far as this process knows."""
        each = [(offered, self._pauses.cover(queue_of(offered.name))) for offered in self._described.items]
        return ProcessorList(items=[offered.model_copy(update={"paused": paused}) for offered, paused in each])

    @cached_property
    def _described(self) -> ProcessorList:
        """Made for the first who asks: it would be a fifth of the time that a process takes to start."""
        return ProcessorList.of(self._acceptance.offered.values())

    async def process(
        self, principal: Principal, document_id: UUID, request: ProcessRequest, key: str | None
    ) -> tuple[StoredResponse, UUID | None]:
        """Accept a document for processing, in one transaction: key, document, job and events, or nothing.

        Returns the answer, and the job to `wake` a worker for if this call has created one.
        Raises NotFound, UnknownProcessor, UnsupportedContentType, ValidationFailed, UploadIncomplete, JobInProgress,
        IdempotencyKeyReused, TooManyJobs.
        """
        self._quotas.reserve.require()
        wanted = self._acceptance.permitted(principal, request)
        request = request.model_copy(update={"processor": wanted.processor})
        body, path = request.model_dump(mode="json"), f"/documents/{document_id}/process"
        keyed = idempotency.keyed(principal.owner_id, key, self._settings.idempotency_ttl, "POST", path, body)

        job_id = uuid7()

        def unit(conn: Connection) -> StoredResponse:
            document = owned(conn, principal.owner_id, document_id)  # before a replay: the right to it may be gone

            def accept(conn: Connection) -> StoredResponse:
                return _stored(self._acceptance.accept(conn, document, wanted, job_id, force=request.force))

            answer = idempotency.once(conn, keyed, accept)
            faults.hit("process.in_transaction")
            return answer

        answer = await self._db.write(required(principal, unit), alone_with=principal.owner_id)
        faults.hit("process.after_commit")
        structlog.contextvars.bind_contextvars(job_id=answer.location.rpartition("/")[2])
        started = answer.status == 202 and not answer.replayed
        return answer, job_id if started else None

    async def retry(self, principal: Principal, job_id: UUID) -> tuple[StoredResponse, UUID | None]:
        """Do what `process` does, with the document and the work of a job of before. Raises the same."""
        job = await self._db.read(lambda conn: _of_owner(conn, principal.owner_id, job_id))
        if job is None or job.document_id is None:
            raise errors.NotFound
        stages = job.args.get("stages") if job.processor == AD_HOC else None
        named = {"pipeline": stages} if stages else {"processor": job.processor}
        return await self.process(principal, job.document_id, ProcessRequest(**named, params=job.args["params"]), None)

    async def result(self, principal: Principal, document_id: UUID, number: int | None = None) -> StoredResult:
        """The current result, or the latest of the previous file that has this number.

        Raises NotFound, ResultNotReady, ProcessingFailed, ResultExpired.
        """
        document, result = await self._read(principal, document_id, _latest, number)
        if result is not None and number not in (None, document.file_number):
            return result
        if document.status is Status.FAILED and document.error:
            raise errors.ProcessingFailed(document.error.detail, error=document.error.model_dump())
        if document.status is Status.COMPLETED and result is None:
            raise errors.ResultExpired
        if document.status is not Status.COMPLETED or result is None:
            raise errors.ResultNotReady(headers=RETRY_AFTER if document.status is Status.PROCESSING else None)
        return result

    async def results(self, principal: Principal, document_id: UUID, number: int | None = None) -> list[StoredResult]:
        """The last good result of each processor, whatever the document's state. Raises NotFound."""
        _, items = await self._read(principal, document_id, results.of_document, number)
        return items

    async def result_of(
        self, principal: Principal, document_id: UUID, processor: str, number: int | None = None
    ) -> StoredResult:
        """The last good result of one processor, whatever the document's state. Raises NotFound."""
        by_processor = partial(results.of_processor, processor=processor)
        _, result = await self._read(principal, document_id, by_processor, number)
        if result is None:
            raise errors.NotFound
        return result

    async def files(
        self, principal: Principal, document_id: UUID, processor: str, number: int | None = None
    ) -> list[ResultFile]:
        """The files of the last good result of one processor. Raises NotFound."""
        await self.result_of(principal, document_id, processor, number)
        of_result = partial(result_files.of_result, processor=processor)
        _, found = await self._read(principal, document_id, of_result, number)
        return found

    async def whole_results(
        self, principal: Principal, document_id: UUID, number: int | None = None
    ) -> list[tuple[StoredResult, list[ResultFile]]]:
        """What `results` returns, large ones with their data or its file, and the files of each. Raises NotFound."""
        _, found = await self._read(principal, document_id, _whole, number)
        return found

    async def file(
        self, principal: Principal, document_id: UUID, processor: str, name: str, number: int | None = None
    ) -> ResultFile:
        """One of them. Raises NotFound."""
        named = partial(result_files.named, processor=processor, name=name)
        _, found = await self._read(principal, document_id, named, number)
        if found is None:
            raise errors.NotFound
        return found

    async def _read(
        self, principal: Principal, document_id: UUID, read: _Read[T], number: int | None
    ) -> tuple[Document, T]:
        """Raises NotFound, also for the number of a file that there is not."""

        def work(conn: Connection) -> tuple[Document, T]:
            document = owned(conn, principal.owner_id, document_id)
            return document, read(conn, document_id, number=file_versions.previous_number(conn, document, number))

        return await self._db.read(work)

    async def job(self, principal: Principal, job_id: UUID, wait: float = 0) -> Job:
        """The job; up to `wait` seconds later if it is not finished before. Raises NotFound."""
        deadline = time.monotonic() + wait
        while True:
            job = await self._db.read(lambda conn: _of_owner(conn, principal.owner_id, job_id))
            if job is None:
                raise errors.NotFound
            structlog.contextvars.bind_contextvars(document_id=str(job.document_id))
            left = deadline - time.monotonic()
            if not job.state.live or left <= 0 or self._watch.closed:
                return Job.of(job)
            await self._watch.wait(job_id, left)

    async def jobs(
        self, principal: Principal, filters: JobFilters, limit: int, cursor: str | None, *, count: bool = False
    ) -> JobPage:
        """The owner's jobs, newest first, and with `count` how many there are.

        Raises InvalidCursor, SearchTooBroad, TooBusy.
        """
        wanted = listing.matching(KIND, principal.owner_id, **filters.conditions)
        wanted = wanted._replace(query=wanted.query.where(~_IN_TRASH))
        found = await numbered_jobs.find(self._db, wanted, limit, cursor, count=count)
        return JobPage(items=[Job.of(job) for job in found.items], next_cursor=found.next_cursor, total=found.total)

    async def cancel(self, principal: Principal, job_id: UUID) -> Job:
        """End a live job now; a worker that has it stops at its next heartbeat. Raises NotFound, JobFinished."""

        def unit(conn: Connection) -> Job:
            job = settlement.cancel(conn, {KIND: self._kinds[KIND]}, principal.owner_id, job_id)
            if job is None:
                raise errors.JobFinished if _of_owner(conn, principal.owner_id, job_id) else errors.NotFound
            return Job.of(numbered_jobs.numbered(conn, job))

        job = await self._db.write(unit)
        structlog.contextvars.bind_contextvars(document_id=str(job.document_id))
        self._watch.notify(job_id)
        return job


_IN_TRASH = exists().where(documents.c.id == job_table.c.document_id, documents.c.deleted_at.is_not(None))
_JOB = Prepared(
    select(job_table).where(
        job_table.c.id == bindparam("id"),
        job_table.c.owner_id == bindparam("owner"),
        job_table.c.kind == KIND,
        ~_IN_TRASH,
    )
)


def _latest(conn: Connection, document_id: UUID, *, number: int | None) -> StoredResult | None:
    """The latest result, or None; of a previous file, one that is missing raises ResultExpired or ResultNotReady."""
    result = results.latest(conn, document_id, number=number)
    if result is None and number is not None:
        made = previous.had_result(conn, document_id, number)
        raise errors.ResultExpired if made else errors.ResultNotReady("No job has made a result of this file.")
    return result


def _whole(conn: Connection, document_id: UUID, *, number: int | None) -> list[tuple[StoredResult, list[ResultFile]]]:
    found = []
    for listed in results.of_document(conn, document_id, number=number):
        processor = listed.provenance.processor
        of_result = result_files.of_result(conn, document_id, processor, number=number)
        large = None if listed.data else results.of_processor(conn, document_id, processor, number=number)
        found.append((large or listed, of_result))
    return found


def _of_owner(conn: Connection, owner_id: UUID, job_id: UUID) -> StoredJob | None:
    """The owner's job, if it is one that processes a document, and that is not in the trash."""
    row = _JOB.one(conn, {"id": job_id, "owner": owner_id})
    return numbered_jobs.numbered(conn, StoredJob.of(row)) if row else None


def _stored(response: ProcessResponse) -> StoredResponse:
    body = response.model_dump_json().encode()
    status = 202 if response.started else 200
    return StoredResponse(status, body, f"/jobs/{response.job.id}", response.document.id)
