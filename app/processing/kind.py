"""The kind of job that processes a document: run a processor over its file, publish the result."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from random import uniform

from pydantic import ValidationError
from sqlalchemy import Connection

from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.errors import AppError, NotFound
from app.events.catalogue import Failure
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Report, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.processing.contract import makes_files
from app.processing.input import Inputs, Work
from app.processing.output import ResultWriter
from app.processing.publication import Product, Publication
from app.processing.queues import KIND, queue_of
from app.processing.sink import Sink, Sinks
from app.processors.base import Permanent, ProcessingError, Processor, Transient
from app.storage.base import Storage

_MAX_BACKOFF = 300.0  # seconds
_MAX_CODE, _MAX_DETAIL = 100, 2000  # characters of a failure


def _failure(error: ProcessingError | AppError) -> Failure:
    """The recorded form of an error: truncated, with NUL and surrogates replaced."""

    def clean(text: str, length: int) -> str:
        return text[:length].encode("utf-8", "replace").decode().replace("\0", "?")

    return Failure(code=clean(error.code, _MAX_CODE), detail=clean(error.detail, _MAX_DETAIL))


# A document's status by the state of its latest job that was not cancelled; CANCELLED: all of its jobs were.
_STATUS_AFTER = {
    JobState.SUCCEEDED: Status.COMPLETED,
    JobState.FAILED: Status.FAILED,
    JobState.CANCELLED: Status.UPLOADED,
}


class ProcessKind:
    """Kind `process`. Its queues are those of the processors, each at the version that this process has."""

    name = KIND

    def __init__(
        self,
        storage: Storage,
        processors: Mapping[str, Processor],
        inputs: Inputs,
        writer: ResultWriter,
        sinks: Sinks,
        publication: Publication,
        *,
        timeout: float,
        max_result_bytes: int,
    ) -> None:
        self.timeout = timeout
        self.queues = {queue_of(each.name, each.version): each.at_once for each in processors.values()}
        self._storage = storage
        self._processors = processors
        self._inputs = inputs
        self._writer = writer
        self._sinks = sinks
        self._publication = publication
        self._max_result_bytes = max_result_bytes

    def backoff(self, attempt: int) -> float:
        """2, 4, 8 … seconds, at the most 300, each up to half shorter so that not all come back at once."""
        return min(2.0 ** min(attempt, 9), _MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    async def run(self, job: Job, report: Report) -> Outcome:
        """Run the processor over a local copy of the file."""
        work = Work.model_validate(job.args)
        processor = self._processors[work.processor]
        try:
            params = processor.params.model_validate(work.params)
        except ValidationError:  # accepted under other settings
            return Failed(Failure(code="invalid-params", detail="The params exceed what the service allows now."))
        try:
            async with self._sinks.sink(job, work) as sink, AsyncExitStack() as copies:
                paths = [await copies.enter_async_context(self._storage.local_copy(each.key)) for each in work.files]
                source = self._inputs.source(job, work, *paths)
                taken = (source, params, report, sink) if makes_files(processor) else (source, params, report)
                answer = await self._writer.prepare(
                    job, await processor.run(*taken), processor.result, self._limit(processor)
                )
        except Permanent as error:
            return Failed(_failure(error))
        except NotFound:
            return Failed(Failure(code="file-missing", detail="The stored file is missing."))
        except (Transient, AppError) as error:
            return Retryable(_failure(error))
        product = Product.of(answer, sink.made, params)
        return Succeeded(product, partial(self._settled, product, sink), alone=bool(sink.made))

    def settled(self, conn: Connection, job: Job, outcome: Outcome) -> None:
        """Nothing: an attempt that is not the last changes nothing but the job."""

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Publish the result of a success, and move the document on; a cancellation puts it back."""
        assert job.document_id is not None, "a job of this kind has a document"
        latest: Job | None = job
        state, error = end.state, end.error
        if state is JobState.SUCCEEDED:
            self._publication.publish(conn, job, end.value)
        elif state is JobState.CANCELLED:
            latest = jobs.last_settled(conn, job.document_id, KIND)
            state, error = (latest.state, latest.error) if latest else (JobState.CANCELLED, None)
        facts = {"job_id": latest and latest.id}
        moved = documents.move(
            conn, job.document_id, Status.PROCESSING, _STATUS_AFTER[state], job_id=job.id, error=error, facts=facts
        )
        if moved is None:
            raise AssertionError("a live job's document is PROCESSING")
        if state is JobState.SUCCEEDED:
            self._publication.delete_original(conn, job, end.value)

    async def _settled(self, product: Product, sink: Sink, published: bool) -> None:  # noqa: FBT001 - of a callback
        if published:
            await self._sinks.removal.discarded(product.deleted)
        else:
            await self._writer.discard(product.answer)
            await sink.discard()

    def _limit(self, processor: Processor) -> int:
        """Bytes of a result of the processor."""
        own: int | None = getattr(processor, "max_result_bytes", None)
        return min(own or self._max_result_bytes, self._max_result_bytes)
