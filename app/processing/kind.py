"""The kind of job that processes a document: run a processor over its file, publish the result."""

import asyncio
import json
from collections.abc import Mapping
from random import uniform
from typing import Any

import structlog
from sqlalchemy import Connection

from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.errors import AppError, NotFound
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Report, Retryable, Succeeded
from app.jobs.models import Failure, Job, JobState
from app.processing import results
from app.processing.work import KIND, Work, queue_prefix
from app.processors.base import Permanent, Processor, Source, Transient
from app.storage.base import Storage

log = structlog.get_logger()

MAX_BACKOFF = 300.0  # seconds
INLINE = 64 * 1024  # bytes of a result that are encoded on the event loop: a thread hop takes longer


# A document's status by the end of the last job that succeeded or failed.
_STATUS_AFTER = {None: Status.UPLOADED, JobState.SUCCEEDED: Status.COMPLETED, JobState.FAILED: Status.FAILED}


class ProcessKind:
    """Kind `process`. Its queues are those of the processors, each at the version that this process has."""

    name = KIND

    def __init__(
        self, storage: Storage, processors: Mapping[str, Processor[Any]], *, timeout: float, max_result_bytes: int
    ) -> None:
        self.timeout = timeout
        self.queues = {f"{queue_prefix(each.name)}{each.version}": each.at_once for each in processors.values()}
        self._storage = storage
        self._processors = processors
        self._max_result_bytes = max_result_bytes

    def backoff(self, attempt: int) -> float:
        """2, 4, 8 … seconds, at the most 300, each up to half shorter so that not all come back at once."""
        return min(2.0 ** min(attempt, 9), MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    async def run(self, job: Job, report: Report) -> Outcome:
        """Run the processor over a local copy of the file."""
        work = Work.of(job.args)
        processor, file = self._processors[work.processor], work.file
        try:
            params = processor.params.model_validate(work.params)
            async with self._storage.local_copy(file.key) as path:
                source = Source(path, file.content_type, file.size, file.sha256, job.tries)
                data = await processor.run(source, params, report)
            await self._refuse_unfit(data)
        except Permanent as error:
            return Failed(Failure(code=error.code, detail=error.detail))
        except NotFound:
            return Failed(Failure(code="file-missing", detail="The stored file is missing."))
        except (Transient, AppError) as error:
            return Retryable(Failure(code=error.code, detail=error.detail))
        return Succeeded(data)

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Publish the result of a success, and move the document on; a cancellation puts it back."""
        assert job.document_id is not None, "a job of this kind has a document"
        latest: Job | None = job
        state: JobState | None = end.state
        error = end.error
        if end.state is JobState.SUCCEEDED:
            results.publish(conn, job.document_id, job.id, Work.of(job.args), end.value)
        elif end.state is JobState.CANCELLED:
            latest = jobs.last_settled(conn, job.document_id, KIND)
            state, error = (latest.state, latest.error) if latest else (None, None)
        moved = documents.move(
            conn,
            job.document_id,
            Status.PROCESSING,
            _STATUS_AFTER[state],
            actor=end.actor,
            job_id=job.id,
            error=error,
            request_id=end.request_id,
            facts={"job_id": latest and latest.id},
        )
        if moved is None:
            raise AssertionError("a live job's document is PROCESSING")

    async def _refuse_unfit(self, data: object) -> None:
        """Raise Permanent for what is no JSON object, or is too large for a result."""
        encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
        size = 0

        def encode(limit: int) -> bool:
            """Encode until the result is longer than `limit` bytes. True: there is no more."""
            nonlocal size
            for chunk in chunks:
                size += len(chunk.encode())
                if size > limit:
                    return False
            return True

        if not isinstance(data, dict):
            raise Permanent("invalid-output", f"The processor returned {type(data).__name__}, not a JSON object.")
        chunks = encoder.iterencode(data)
        try:
            whole = encode(min(INLINE, self._max_result_bytes))
            whole = whole or await asyncio.to_thread(encode, self._max_result_bytes)
        except (TypeError, ValueError, RecursionError) as error:
            log.warning("job.invalid_output", reason=str(error)[:200])
            raise Permanent("invalid-output", "The processor returned what JSON cannot hold.") from None
        if not whole or size > self._max_result_bytes:
            detail = f"The result is larger than {self._max_result_bytes} bytes."
            raise Permanent("output-too-large", detail)
