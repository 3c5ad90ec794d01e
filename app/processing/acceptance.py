"""Accepting work: what is asked for becomes a job, in one transaction with the document that it is about."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from app.documents.schemas import Document, ProcessorChoice, StatedMetadata, UploadedDocument
from app.documents.service import UploadJob
from app.events.catalogue.jobs import JobQueued
from app.files.models import ContentType, File
from app.jobs import repository as jobs
from app.jobs.repository import NewJob
from app.jobs.schemas import Job
from app.jobs.turns import Turns
from app.processing import results
from app.processing.contract import content_types
from app.processing.input import InputFile
from app.processing.jobs import numbered
from app.processing.queues import KIND, queue_of
from app.processing.schemas import Force, ProcessResponse
from app.processing.stages.pipeline import AD_HOC, VERSION, Pipeline, UnusableStage, pipeline_of
from app.processing.work import Work
from app.processors.base import CombiningParams, MakingParams, Processor
from app.quotas import Quotas
from app.settings import Settings
from app.web.problems import invalid

_THEN = "then"  # the param that asks for what is done with documents that are made
_MAX_SHARED = 4096  # bytes of JSON of params that a whole batch has: each job has them, and others wait for the writing


class RequestedWork(NamedTuple):
    """A processor's name and version, and its complete params: what a client asks for, whatever the document.

    `place` is a JSON Pointer to where in the body it is named, `content_types` is what it reads, and `others` are more
    documents that it reads. A pipeline has `stages`, as requests spell them. `deletes`: it may delete the document.
    """

    processor: str
    version: str
    params: dict[str, Any]
    place: str
    content_types: list[ContentType]
    stages: list[str]
    others: tuple[UUID, ...] = ()
    deletes: bool = False

    @property
    def queue(self) -> str:
        """Where its jobs wait."""
        return queue_of(self.processor, VERSION if self.stages else self.version)

    @property
    def work(self) -> tuple[Any, ...]:
        """What running work has to equal, to be this very work."""
        return self.processor, self.params, self.stages


class Acceptance:
    """Accepts work on documents. `wake` has somebody look for a job that was accepted; no answer need wait for it.

    `offered` are the processors and the pipelines by name, the default one first.
    """

    def __init__(
        self,
        processors: Mapping[str, Processor],
        pipelines: Mapping[str, Pipeline],
        wake: Callable[[UUID], Awaitable[None]],
        quotas: Quotas,
        turns: Turns,
        settings: Settings,
    ) -> None:
        self._processors = processors
        self.offered: dict[str, Processor] = {**processors, **pipelines}
        self._quotas = quotas
        self._turns = turns
        self._settings = settings
        self.wake = wake

    def permitted(
        self, principal: Principal, asked: ProcessorChoice, *place: str, for_many: bool = False
    ) -> RequestedWork:
        """As `requested`, by somebody. Raises InsufficientScope, too."""
        wanted = self.requested(asked, *place, for_many=for_many)
        if wanted.deletes:
            principal.require(Scope.DOCUMENTS_DELETE)
        return wanted

    def requested(self, asked: ProcessorChoice, *place: str, for_many: bool = False) -> RequestedWork:
        """Check what is asked for at a place in the body, and fill in its defaults, so that equal work compares equal.
        Params `for_many` documents have at most 4 KiB.

        Raises UnknownProcessor, ValidationFailed.
        """
        here = _pointer(*place)
        processor = self._chosen(asked, here)
        try:
            params = processor.params.model_validate(asked.params)
        except ValidationError as error:
            raise invalid(error, *place, "params") from None
        if reason := _unstorable(asked.params, _MAX_SHARED if for_many else None):
            raise errors.ValidationFailed(errors=[{"detail": reason, "pointer": f"{here}/params"}])
        complete, named = params.model_dump(mode="json", by_alias=True), "pipeline" if asked.pipeline else "processor"
        stages = processor.spelled if isinstance(processor, Pipeline) else []
        reads, named_at = content_types(processor), f"{here}/{named}"
        wanted = RequestedWork(processor.name, processor.version, complete, named_at, reads, stages)
        return self._making(wanted, params, *place) if isinstance(params, MakingParams) else wanted

    def _making(self, wanted: RequestedWork, params: MakingParams, *place: str) -> RequestedWork:
        """Check what is to be done with the documents that the work makes. Raises as `requested` does."""
        others = params.others if isinstance(params, CombiningParams) else ()
        if place[-1:] == (_THEN,) and (params.then or others):
            raise errors.ValidationFailed(
                "What is done with documents that are made can make no more.",
                errors=[{"detail": "makes documents that are processed, or reads others", "pointer": _pointer(*place)}],
            )
        if params.then is None:
            return wanted._replace(others=others, deletes=params.delete_original)
        then = self.requested(ProcessorChoice(**params.then.model_dump()), *place, "params", _THEN, for_many=True)
        follow_up = {"processor": then.processor, "params": then.params}
        complete = wanted.params | {"then": follow_up}
        return wanted._replace(params=complete, others=others, deletes=params.delete_original or then.deletes)

    def _chosen(self, asked: ProcessorChoice, here: str) -> Processor:
        """Raises UnknownProcessor, ValidationFailed."""
        if asked.pipeline:
            try:
                return pipeline_of(AD_HOC, asked.pipeline, self._processors)
            except UnusableStage as error:
                detail, pointer = f"{error}."[:1].upper() + f"{error}."[1:], f"{here}/pipeline/{error.number}"
                if error.unknown:
                    raise errors.UnknownProcessor(detail, pointer=pointer) from None
                raise errors.ValidationFailed(errors=[{"detail": detail, "pointer": pointer}]) from None
        processor = self.offered.get(asked.processor or next(iter(self.offered)))
        if processor is None:
            known = ", ".join(sorted(self.offered))
            raise errors.UnknownProcessor(f"The processors are: {known}.", pointer=f"{here}/processor")
        return processor

    def accept(
        self, conn: Connection, document: Document, wanted: RequestedWork, job_id: UUID, *, force: Force = False
    ) -> ProcessResponse:
        """Move the document on and create its job, unless the work is under way or done. A refusal changes nothing.

        Raises UnsupportedContentType, ValidationFailed, UploadIncomplete, JobInProgress, OnHold, TooManyJobs; Retry
        when another transaction moved the document first.
        """
        _require_readable(document, wanted)
        if current := _current(conn, document, wanted, force=bool(force)):
            return current
        if document.hold is not None:
            _require_kept(conn, document, wanted)
        self._quotas.check_jobs(conn, document.owner_id)
        file = documents.file_of(conn, document.id)
        return self._begin(conn, document, file, wanted, job_id, force=force)

    def accept_new(
        self, conn: Connection, owner_id: UUID, added: Sequence[tuple[Document, File]], wanted: RequestedWork
    ) -> None:
        """Do the same for documents that the transaction has added. Raises UnsupportedContentType, ValidationFailed,
        TooManyJobs."""
        self._quotas.check_jobs(conn, owner_id, len(added))
        for document, file in added:
            _require_readable(document, wanted)
            self._begin(conn, document, file, wanted, uuid7())

    def _begin(
        self,
        conn: Connection,
        document: Document,
        file: File,
        wanted: RequestedWork,
        job_id: UUID,
        *,
        force: Force = False,
    ) -> ProcessResponse:
        """Move the document on and create its job. Raises ValidationFailed, and Retry as `accept` does."""
        work = Work(
            processor=wanted.processor,
            version=wanted.version,
            params=wanted.params,
            filename=document.filename,
            metadata=document.model_dump(include=set(StatedMetadata.model_fields)),
            file=InputFile.model_validate(file),
            file_number=document.file_number,
            others=[_other(conn, document.owner_id, each, wanted) for each in wanted.others],
            stages=wanted.stages,
            force=force,
        )
        moved = documents.move(conn, document.id, document.status, Status.PROCESSING, job_id=job_id)
        if moved is None:
            raise Retry
        new = NewJob(
            id=job_id,
            kind=KIND,
            queue=wanted.queue,
            args=_args(work),
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


def _require_kept(conn: Connection, document: Document, wanted: RequestedWork) -> None:
    """Raise OnHold if the work would remove the document, or a result of it."""
    stages = [each.removesuffix("?") for each in wanted.stages]
    if wanted.deletes or results.made_any(conn, document.id, [wanted.processor, *stages]):
        raise errors.OnHold


def _require_readable(document: Document, wanted: RequestedWork) -> None:
    """Raise UnsupportedContentType unless the processor reads such documents."""
    if document.content_type not in wanted.content_types:
        reads = ", ".join(wanted.content_types)
        detail = f"The processor {wanted.processor} reads only {reads}."
        raise errors.UnsupportedContentType(detail, pointer=wanted.place)


def _other(conn: Connection, owner_id: UUID, document_id: UUID, wanted: RequestedWork) -> InputFile:
    """Return the file of another document that is to be read. Raises ValidationFailed, UnsupportedContentType."""
    pointer = f"{wanted.place.rpartition('/')[0]}/params/with/{wanted.others.index(document_id)}"
    document = documents.get(conn, owner_id, document_id)
    if document is None or document.status is Status.INITIATED:
        detail = "There is no such document, or its upload is not complete."
        raise errors.ValidationFailed(detail, errors=[{"detail": detail, "pointer": pointer}])
    if document.content_type not in wanted.content_types:
        raise errors.UnsupportedContentType(f"The processor {wanted.processor} does not read it.", pointer=pointer)
    return InputFile.model_validate(documents.file_of(conn, document_id))


def _args(work: Work) -> dict[str, Any]:
    """The args of a job. Those of a processor alone are as they were before there were pipelines."""
    return work.model_dump(exclude=None if work.stages else {"stages", "force"})


def _unstorable(params: dict[str, Any], max_bytes: int | None) -> str | None:
    """Why not every database and client could hold the params; None: they can."""
    try:
        said = orjson.dumps(params)
    except TypeError:
        return "has a number of more than 64 bits, or too many levels"
    if max_bytes and len(said) > max_bytes:
        return f"has more than {max_bytes} bytes, which each of many jobs would have"
    return "contains NUL" if b"\\u0000" in said else None


def _pointer(*place: str) -> str:
    return "".join(f"/{step}" for step in place)


def _current(conn: Connection, document: Document, wanted: RequestedWork, *, force: bool) -> ProcessResponse | None:
    """The running job for this very work, or the one that made a result of it; None when a new one is called for.

    Raises UploadIncomplete, JobInProgress.
    """
    if document.status is Status.INITIATED:
        raise errors.UploadIncomplete
    if document.status is Status.PROCESSING and document.job_id is not None:
        job = jobs.get(conn, document.job_id)
        assert job is not None
        if (job.args["processor"], job.args["params"], job.args.get("stages", [])) != wanted.work:
            raise errors.JobInProgress
        return ProcessResponse(document=document, job=Job.of(numbered(conn, job)), started=False)
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
    return ProcessResponse(document=document, job=Job.of(numbered(conn, job)), started=False) if job else None
