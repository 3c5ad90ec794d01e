"""The kind of job that processes a document: run a processor over its file, publish the result."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from random import uniform
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.errors import AppError, NotFound
from app.events.catalogue import Failure
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Report, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.processing import results
from app.processors.base import Permanent, ProcessingError, Processor, Source, Transient
from app.storage.base import Storage

log = structlog.get_logger()

KIND = "process"
_MAX_BACKOFF = 300.0  # seconds
_MAX_CODE, _MAX_DETAIL = 100, 2000  # characters of a failure
_MAX_DEPTH = 100  # levels of a result
_INLINE = 64 * 1024  # bytes of a result that are encoded on the event loop: a thread hop takes longer


class InputFile(BaseModel):
    """The file that a job reads: where it is stored, and what it was when the job was accepted."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    content_type: str
    size: int
    sha256: str


class Work(BaseModel):
    """The args of a job: a processor's name and version, its complete params, and the file to read.

    A newer version may have put more into them, which is passed over; what an older one lacks needs a default.
    """

    processor: str
    version: str
    params: dict[str, Any]
    file: InputFile


def queue_of(processor: str, version: str = "") -> str:
    """Where jobs for a processor at this version wait. Without a version: what all its queues begin with."""
    return f"{KIND}/{processor}@{version}"


def _failure(error: ProcessingError | AppError) -> Failure:
    """The recorded form of an error: truncated, with NUL and surrogates replaced."""

    def clean(text: str, length: int) -> str:
        return text[:length].encode("utf-8", "replace").decode().replace("\0", "?")

    return Failure(code=clean(error.code, _MAX_CODE), detail=clean(error.detail, _MAX_DETAIL))


def _is_deeper(value: object, limit: int) -> bool:
    """Whether a JSON value has more levels than the limit."""
    level: list[object] = [value]
    for _ in range(limit):
        parents = (each for each in level if isinstance(each, dict | list | tuple))
        level = [each for parent in parents for each in (parent.values() if isinstance(parent, dict) else parent)]
        if not level:
            return False
    return True


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
        self, storage: Storage, processors: Mapping[str, Processor[Any]], *, timeout: float, max_result_bytes: int
    ) -> None:
        self.timeout = timeout
        self.queues = {queue_of(each.name, each.version): each.at_once for each in processors.values()}
        self._storage = storage
        self._processors = processors
        self._max_result_bytes = max_result_bytes
        # Not the default pool, whose threads processors may keep busy.
        self._encoders = ThreadPoolExecutor(1, thread_name_prefix="results")

    def backoff(self, attempt: int) -> float:
        """2, 4, 8 … seconds, at the most 300, each up to half shorter so that not all come back at once."""
        return min(2.0 ** min(attempt, 9), _MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    async def run(self, job: Job, report: Report) -> Outcome:
        """Run the processor over a local copy of the file."""
        work = Work.model_validate(job.args)
        processor, file = self._processors[work.processor], work.file
        try:
            params = processor.params.model_validate(work.params)
            async with self._storage.local_copy(file.key) as path:
                source = Source(path, file.content_type, file.size, file.sha256, job.tries)
                data = await processor.run(source, params, report)
            await self._validate_output(data)
        except Permanent as error:
            return Failed(_failure(error))
        except NotFound:
            return Failed(Failure(code="file-missing", detail="The stored file is missing."))
        except (Transient, AppError) as error:
            return Retryable(_failure(error))
        return Succeeded(data)

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Publish the result of a success, and move the document on; a cancellation puts it back."""
        assert job.document_id is not None, "a job of this kind has a document"
        latest: Job | None = job
        state, error = end.state, end.error
        if state is JobState.SUCCEEDED:
            results.publish(conn, job, end.value)
        elif state is JobState.CANCELLED:
            latest = jobs.last_settled(conn, job.document_id, KIND)
            state, error = (latest.state, latest.error) if latest else (JobState.CANCELLED, None)
        facts = {"job_id": latest and latest.id}
        moved = documents.move(
            conn, job.document_id, Status.PROCESSING, _STATUS_AFTER[state], job_id=job.id, error=error, facts=facts
        )
        if moved is None:
            raise AssertionError("a live job's document is PROCESSING")

    async def _validate_output(self, data: object) -> None:
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
            whole = encode(min(_INLINE, self._max_result_bytes))
            if not whole:
                loop = asyncio.get_running_loop()
                whole = await loop.run_in_executor(self._encoders, encode, self._max_result_bytes)
        except (TypeError, ValueError, RecursionError) as error:
            log.warning("job.invalid_output", reason=str(error)[:200])
            raise Permanent("invalid-output", "The processor returned what JSON cannot hold.") from None
        if _is_deeper(data, _MAX_DEPTH):
            raise Permanent("invalid-output", f"The processor returned JSON of more than {_MAX_DEPTH} levels.")
        if not whole or size > self._max_result_bytes:
            detail = f"The result is larger than {self._max_result_bytes} bytes."
            raise Permanent("output-too-large", detail)
