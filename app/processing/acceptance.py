"""Accepting work: what is asked for becomes a job, in one transaction with the document that it is about."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app import errors
from app.auth.principal import Principal, Scope
from app.database import Retry
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.documents.schemas import Document, Metadata, ProcessorChoice, UploadedDocument
from app.documents.service import UploadJob
from app.events.catalogue import JobQueued
from app.files.models import ContentType
from app.jobs import repository as jobs
from app.jobs.repository import NewJob
from app.jobs.schemas import Job
from app.jobs.turns import Turns
from app.processing import results
from app.processing.contract import content_types
from app.processing.input import InputFile, Work
from app.processing.queues import KIND, queue_of
from app.processing.schemas import ProcessResponse
from app.processors.base import CombiningParams, MakingParams, Processor
from app.quotas import Quotas
from app.settings import Settings
from app.web.problems import invalid


class RequestedWork(NamedTuple):
    """A processor's name and version, and its complete params: what a client asks for, whatever the document.

    `place` is a JSON Pointer to where in the body it is asked for, `content_types` is what the processor reads, and
    `others` are more documents that it reads. `deletes`: it may delete the document.
    """

    processor: str
    version: str
    params: dict[str, Any]
    place: str
    content_types: list[ContentType]
    others: tuple[UUID, ...] = ()
    deletes: bool = False


class Acceptance:
    """Accepts work on documents. `wake` has somebody look for a job that was accepted; no answer need wait for it."""

    def __init__(
        self,
        processors: Mapping[str, Processor],
        wake: Callable[[UUID], Awaitable[None]],
        quotas: Quotas,
        turns: Turns,
        settings: Settings,
    ) -> None:
        self._processors = processors
        self._quotas = quotas
        self._turns = turns
        self._settings = settings
        self.wake = wake

    def permitted(self, principal: Principal, asked: ProcessorChoice, *place: str) -> RequestedWork:
        """As `requested`, by somebody. Raises InsufficientScope, too."""
        wanted = self.requested(asked, *place)
        if wanted.deletes:
            principal.require(Scope.DOCUMENTS_DELETE)
        return wanted

    def requested(self, asked: ProcessorChoice, *place: str) -> RequestedWork:
        """Check what is asked for at a place in the body, and fill in its defaults, so that equal work compares equal.

        Raises UnknownProcessor, ValidationFailed.
        """
        here = "".join(f"/{step}" for step in place)
        processor = self._processors.get(asked.processor or next(iter(self._processors)))
        if processor is None:
            known = ", ".join(sorted(self._processors))
            raise errors.UnknownProcessor(f"The processors are: {known}.", pointer=f"{here}/processor")
        try:
            params = processor.params.model_validate(asked.params)
        except ValidationError as error:
            raise invalid(error, *place, "params") from None
        if b"\\u0000" in orjson.dumps(asked.params):
            raise errors.ValidationFailed(
                "Text must not contain NUL.", errors=[{"detail": "contains NUL", "pointer": f"{here}/params"}]
            )
        complete = params.model_dump(mode="json", by_alias=True)
        wanted = RequestedWork(processor.name, processor.version, complete, here, content_types(processor))
        return self._making(wanted, params, *place) if isinstance(params, MakingParams) else wanted

    def _making(self, wanted: RequestedWork, params: MakingParams, *place: str) -> RequestedWork:
        """Check what is to be done with the documents that the work makes. Raises as `requested` does."""
        others = params.others if isinstance(params, CombiningParams) else ()
        if params.then is None:
            return wanted._replace(others=others, deletes=params.delete_original)
        here = (*place, "params", "then")
        then = self.requested(ProcessorChoice(**params.then.model_dump()), *here)
        if then.params.get("then") or then.others:
            raise errors.ValidationFailed(
                "What is done with documents that are made can make no more.",
                errors=[{"detail": "makes documents that are processed, or reads others", "pointer": then.place}],
            )
        follow_up = {"processor": then.processor, "params": then.params}
        complete = wanted.params | {"then": follow_up}
        return wanted._replace(params=complete, others=others, deletes=params.delete_original or then.deletes)

    def accept(
        self, conn: Connection, document: Document, wanted: RequestedWork, job_id: UUID, *, force: bool = False
    ) -> ProcessResponse:
        """Move the document on and create its job, unless the work is under way or done. A refusal changes nothing.

        Raises UnsupportedContentType, ValidationFailed, UploadIncomplete, JobInProgress, TooManyJobs; Retry when
        another transaction moved the document first.
        """
        if document.content_type not in wanted.content_types:
            reads = ", ".join(wanted.content_types)
            detail = f"The processor {wanted.processor} reads only {reads}."
            raise errors.UnsupportedContentType(detail, pointer=f"{wanted.place}/processor")
        if current := _current(conn, document, wanted, force=force):
            return current
        self._quotas.check_jobs(conn, document.owner_id)
        work = Work(
            processor=wanted.processor,
            version=wanted.version,
            params=wanted.params,
            filename=document.filename,
            metadata=document.model_dump(include=set(Metadata.model_fields)),
            file=InputFile.model_validate(documents.file_of(conn, document.id)),
            others=[_other(conn, document.owner_id, each, wanted) for each in wanted.others],
        )
        moved = documents.move(conn, document.id, document.status, Status.PROCESSING, job_id=job_id)
        if moved is None:
            raise Retry
        new = NewJob(
            id=job_id,
            kind=KIND,
            queue=queue_of(wanted.processor, wanted.version),
            args=work.model_dump(),
            owner_id=document.owner_id,
            max_tries=self._settings.job_max_tries,
            key=f"document:{document.id}",
            document_id=document.id,
        )
        job = jobs.enqueue(conn, new, JobQueued(processor=wanted.processor), self._turns.head(new.queue))
        return ProcessResponse(document=moved, job=Job.of(job), started=True)

    def job_for(self, principal: Principal, asked: ProcessorChoice) -> UploadJob:
        """The job that an upload asks for in its metadata.

        Raises InsufficientScope, UnknownProcessor, ValidationFailed; and its `accept` UnsupportedContentType,
        TooManyJobs.
        """
        principal.require(Scope.DOCUMENTS_PROCESS)
        wanted, job_id = self.permitted(principal, asked, "metadata", "process"), uuid7()

        def accept(conn: Connection, document: Document) -> UploadedDocument:
            accepted = self.accept(conn, document, wanted, job_id)
            return UploadedDocument(**dict(accepted.document), job=accepted.job)

        return UploadJob(wanted.processor, accept, partial(self.wake, job_id))


def _other(conn: Connection, owner_id: UUID, document_id: UUID, wanted: RequestedWork) -> InputFile:
    """Return the file of another document that is to be read. Raises ValidationFailed, UnsupportedContentType."""
    pointer = f"{wanted.place}/params/with/{wanted.others.index(document_id)}"
    document = documents.get(conn, owner_id, document_id)
    if document is None or document.status is Status.INITIATED:
        detail = "There is no such document, or its upload is not complete."
        raise errors.ValidationFailed(detail, errors=[{"detail": detail, "pointer": pointer}])
    if document.content_type not in wanted.content_types:
        raise errors.UnsupportedContentType(f"The processor {wanted.processor} does not read it.", pointer=pointer)
    return InputFile.model_validate(documents.file_of(conn, document_id))


def _current(conn: Connection, document: Document, wanted: RequestedWork, *, force: bool) -> ProcessResponse | None:
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
    result = results.provenance(conn, document.id, wanted.processor)
    if result is None or (result.processor_version, result.params, result.input_sha256) != (
        wanted.version,
        wanted.params,
        document.sha256,
    ):
        return None
    job = jobs.get(conn, result.job_id)
    return ProcessResponse(document=document, job=Job.of(job), started=False) if job else None
