"""The kind of job that processes a document: run a processor over its file, publish the result."""

from collections.abc import Mapping
from functools import partial
from random import uniform
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.events.catalogue import JobStageFailed
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Report, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.processing import results
from app.processing.failures import FAILURES, INVALID_PARAMS, outcome_of
from app.processing.input import Inputs
from app.processing.output import Limits, Outputs
from app.processing.queues import KIND, queue_of
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processing.stages.run import PipelineRunner
from app.processing.work import Work
from app.processors.base import Processor
from app.storage.base import Storage

_MAX_BACKOFF = 300.0  # seconds


# A document's status by the state of its latest job that was not cancelled; CANCELLED: all of its jobs were.
_STATUS_AFTER = {
    JobState.SUCCEEDED: Status.COMPLETED,
    JobState.FAILED: Status.FAILED,
    JobState.CANCELLED: Status.UPLOADED,
}


class ProcessKind:
    """Kind `process`. Its queues are those of the processors, each at the version that this process has, and of the
    pipelines."""

    name = KIND

    def __init__(
        self,
        storage: Storage,
        processors: Mapping[str, Processor[Any]],
        pipelines: PipelineRunner,
        inputs: Inputs,
        outputs: Outputs,
        limits: Limits,
        *,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        self.queues = {queue_of(each.name, each.version): each.at_once for each in processors.values()}
        self.queues |= pipelines.queues
        self._storage = storage
        self._processors = processors
        self._pipelines = pipelines
        self._inputs = inputs
        self._outputs = outputs
        self._limits = limits

    def backoff(self, attempt: int) -> float:
        """2, 4, 8 … seconds, at the most 300, each up to half shorter so that not all come back at once."""
        return min(2.0 ** min(attempt, 9), _MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    async def run(self, job: Job, report: Report) -> Outcome:
        """Run the processor, or the stages of the pipeline, over a local copy of the file."""
        work = Work.model_validate(job.args)
        if work.stages:
            return await self._pipelines.run(job, work, report)
        processor, file = self._processors[work.processor], work.file
        try:
            params = processor.params.model_validate(work.params)
        except ValidationError:  # accepted under other settings
            return outcome_of(INVALID_PARAMS)
        try:
            async with self._storage.local_copy(file.key) as path:
                data = await processor.run(await self._inputs.source(job, file, path), params, report)
            output = await self._outputs.prepare(job, data, processor.result, self._limits.bytes_of(processor))
        except FAILURES as error:
            return outcome_of(error)
        return Succeeded(output, partial(self._outputs.discard, output))

    def settled(self, conn: Connection, job: Job, outcome: Outcome) -> None:
        """Nothing, but that of a pipeline it is recorded which stage failed."""
        if isinstance(outcome, Failed | Retryable) and isinstance(outcome.value, JobStageFailed):
            jobs.record(conn, outcome.value, job)

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Publish the results of a success, and move the document on; a cancellation puts it back."""
        assert job.document_id is not None, "a job of this kind has a document"
        latest: Job | None = job
        state, error = end.state, end.error
        if state is JobState.SUCCEEDED:
            made = end.value if isinstance(end.value, list) else [Made(Provenance.of(job), end.value)]
            for each in made:
                results.publish(conn, each, self._limits.orphan_grace)
        elif state is JobState.CANCELLED:
            latest = jobs.last_settled(conn, job.document_id, KIND)
            state, error = (latest.state, latest.error) if latest else (JobState.CANCELLED, None)
        facts = {"job_id": latest and latest.id}
        moved = documents.move(
            conn, job.document_id, Status.PROCESSING, _STATUS_AFTER[state], job_id=job.id, error=error, facts=facts
        )
        if moved is None:
            raise AssertionError("a live job's document is PROCESSING")
