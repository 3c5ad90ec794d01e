"""The kind of job that processes a document: run a processor or a pipeline over it, publish what that made."""

from functools import partial
from random import uniform

from sqlalchemy import Connection

from app.database import Database
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.events.catalogue.jobs import JobStageFailed
from app.jobs import repository as jobs
from app.jobs.kinds import End, Failed, Outcome, Report, Retryable
from app.jobs.models import Job, JobState
from app.processing.jobs import lacks_number, numbered
from app.processing.publication import Publication
from app.processing.queues import KIND
from app.processing.run import ProcessorRunner
from app.processing.stages.run import PipelineRunner
from app.processing.work import Work

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
        db: Database,
        processors: ProcessorRunner,
        pipelines: PipelineRunner,
        publication: Publication,
        *,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        self._db = db
        self.queues = {**processors.queues, **pipelines.queues}
        self._processors = processors
        self._pipelines = pipelines
        self._publication = publication

    def backoff(self, attempt: int) -> float:
        """2, 4, 8 … seconds, at the most 300, each up to half shorter so that not all come back at once."""
        return min(2.0 ** min(attempt, 9), _MAX_BACKOFF) * uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret

    async def run(self, job: Job, report: Report) -> Outcome:
        """Run the processor, or the stages of the pipeline."""
        if lacks_number(job):
            job = await self._db.read(partial(numbered, job=job))
        work = Work.model_validate(job.args)
        runner = self._pipelines if work.stages else self._processors
        return await runner.run(job, work, report)

    def settled(self, conn: Connection, job: Job, outcome: Outcome) -> None:
        """Nothing, but that of a pipeline it is recorded which stage failed."""
        if isinstance(outcome, Failed | Retryable) and isinstance(outcome.value, JobStageFailed):
            jobs.record(conn, outcome.value, job)

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Publish what a success has made, and move the document on; a cancellation puts it back. Raises Refused."""
        assert job.document_id is not None, "a job of this kind has a document"
        latest: Job | None = job
        state, error = end.state, end.error
        if state is JobState.SUCCEEDED:
            self._publication.publish(conn, job, end.value)
        elif state is JobState.CANCELLED:
            latest = _last_settled(conn, job)
            state, error = (latest.state, latest.error) if latest else (JobState.CANCELLED, None)
        facts = {"job_id": latest and latest.id}
        moved = documents.move(
            conn, job.document_id, Status.PROCESSING, _STATUS_AFTER[state], job_id=job.id, error=error, facts=facts
        )
        if moved is None:
            raise AssertionError("a live job's document is PROCESSING")
        if end.state is JobState.SUCCEEDED:
            self._publication.delete_original(conn, job, end.value)


def _last_settled(conn: Connection, job: Job) -> Job | None:
    """The latest job that succeeded or failed over the same file of the document. None: there was none."""
    assert job.document_id is not None, "a job of this kind has a document"
    latest = jobs.last_settled(conn, job.document_id, KIND)
    same = latest and latest.args["file"]["key"] == job.args["file"]["key"]
    return latest if same else None
