"""One attempt at a job that was claimed: work while heartbeats keep it, and settle what comes of it."""

import asyncio
import re
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from app.client.calls import Answer
from app.events.failure import Failure
from app.jobs.kinds import Failed, Outcome, Released, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.jobs.outcome import CANCEL_TIMEOUT, TIMED_OUT, outcome_of_task, outcome_of_work
from app.processing.input import InputFile
from app.processing.output import Limits
from app.processing.queues import KIND, queue_of
from app.processing.run import Attempted, Tools, attempt
from app.processing.work import Work
from app.processors.base import Processor
from app.remote.schemas import ClaimedJob
from app.remote.worker.api import HeldJob
from app.remote.worker.making import HeldSinks, JsonWriter, completion
from app.remote.worker.reading import HeldInputs

log = structlog.get_logger()

_LEAST = 1.0  # seconds between heartbeats, at the least


class Attempt:
    """An attempt at a job with a processor, within `seconds`. Files it reads or makes have at most `max_file_bytes`."""

    def __init__(
        self,
        held: HeldJob,
        processor: Processor,
        writer: JsonWriter,
        limits: Limits,
        *,
        seconds: float,
        max_file_bytes: int,
    ) -> None:
        self.queue = queue_of(processor.name, processor.version)
        self.work: asyncio.Task[Outcome] | None = None
        self._held = held
        self._processor = processor
        self._writer = writer
        self._limits = limits
        self._seconds = seconds
        self._max_file_bytes = max_file_bytes
        self._progress = 0.0
        self._stopping = False

    async def run(self) -> None:
        """Work and settle. Raises nothing: what is not settled is rescued when the lease has expired."""
        job = self._held.job
        structlog.contextvars.bind_contextvars(
            user_id=str(job.owner_id),
            document_id=str(job.document_id),
            job_id=str(job.job_id),
            processor=job.processor,
        )
        log.info("job.claimed", attempt=job.attempt)
        try:
            with TemporaryDirectory(prefix="document-api-", ignore_cleanup_errors=True) as folder:
                await self._hold(Path(folder))
        except Exception:
            log.exception("job.attempt_broken")

    def stop(self) -> None:
        """Stop the work for a shutdown, and give the job back."""
        self._stopping = True
        if self.work:
            self.work.cancel()

    async def _hold(self, folder: Path) -> None:
        """Work while the job is held."""
        work_in = partial(self._outcome, folder)
        self.work = work = asyncio.create_task(outcome_of_work(work_in, self.queue, self._seconds))
        if self._stopping:  # claimed at the last moment
            work.cancel()
        keeping = asyncio.create_task(self._keep())
        tasks: list[asyncio.Task[Any]] = [work, keeping]
        try:
            longest = self._seconds + CANCEL_TIMEOUT
            await asyncio.wait(tasks, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await self._settle(outcome_of_task(work, stopping=self._stopping))
            elif not keeping.done():
                log.error("job.abandoned", queue=self.queue)  # it goes on although cancelled; its fence holds
                await self._settle(TIMED_OUT)
            else:
                keeping.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)

    async def _keep(self) -> None:
        """Renew the lease every third of it. Returns when the job is lost."""
        lease = self._held.job.lease_seconds
        while True:
            await asyncio.sleep(max(_LEAST, lease / 3))
            held = await self._held.beat(self._progress)
            if held is None:
                break
            lease = held.lease_seconds
        log.info("job.stopped", reason="no longer held: cancelled, or the lease was lost")

    async def _outcome(self, folder: Path) -> Outcome:
        """Run the processor as a local attempt does."""
        work = _work(self._held.job)
        inputs = HeldInputs(self._held, folder, self._max_file_bytes, self._limits.max_result_bytes)
        sinks = HeldSinks(self._held, folder, self._max_file_bytes)
        tools = Tools(inputs, self._writer, sinks, self._limits)
        made = await attempt(self._processor, _job(self._held.job, work, self.queue), work, self._report, tools)
        return Succeeded(made.product) if isinstance(made, Attempted) else made

    def _report(self, fraction: float) -> None:
        """Note how far the work is, from 0 to 1. It never goes back."""
        self._progress = max(self._progress, min(1.0, fraction))

    async def _settle(self, outcome: Outcome) -> None:
        match outcome:
            case Succeeded(product):
                answer = await self._held.settle("complete", completion(product))
                if not _is_settled(answer):
                    answer = await self._fail(_refused(answer))
            case Released():
                answer = await self._held.settle("release")
            case Failed() | Retryable():
                answer = await self._fail(outcome)
            case _:
                raise AssertionError("a processor comes to no other outcome")
        log.info("job.settled", outcome=type(outcome).__name__.lower(), **_said(answer))

    async def _fail(self, outcome: Failed | Retryable) -> Answer:
        error = outcome.error
        said = {
            "code": re.sub("[^a-z0-9-]", "-", error.code.lower()) or "processor-error",
            "detail": "".join(each if each.isprintable() else " " for each in error.detail) or "No reason was given.",
            "transient": isinstance(outcome, Retryable),
        }
        return await self._held.settle("fail", said)


def _is_settled(answer: Answer) -> bool:
    """Whether nothing more can be said about the job: it is settled, or lost."""
    return answer.status in {200, 401, 409}


def _refused(answer: Answer) -> Failed | Retryable:
    """What it means that a job cannot be completed. 404: by a process of the service that lacks the processor."""
    told = answer.content.get("error") or answer.content
    problem = answer._replace(content=told).problem
    error = Failure(code=problem.code, detail=problem.detail)
    return Retryable(error) if answer.status == 404 else Failed(error)


def _said(answer: Answer) -> dict[str, Any]:
    """What a log line says of the end."""
    if answer.status == 200:
        return {"state": str(answer.content["state"])}
    return {"state": "lost", "reason": answer.problem.code}


def _work(job: ClaimedJob) -> Work:
    """What the job is to do. The key of a file is its number."""
    files = [
        InputFile(key=str(number), **each.model_dump(exclude={"url", "headers"}))
        for number, each in enumerate(job.inputs)
    ]
    return Work(
        processor=job.processor,
        version=job.version,
        params=job.params,
        filename=job.filename,
        metadata=job.metadata.model_dump(),
        file=files[0],
        file_number=1,  # the service knows which it is, and says so in the result
        others=files[1:],
    )


def _job(job: ClaimedJob, work: Work, queue: str) -> Job:
    """The job as the code of local attempts knows it."""
    return Job(
        id=job.job_id,
        kind=KIND,
        queue=queue,
        key=None,
        args=work.model_dump(mode="json"),
        owner_id=job.owner_id,
        document_id=job.document_id,
        state=JobState.WAITING,
        fence=0,
        tries=job.attempt,
        max_tries=job.attempt,
        run_at=job.deadline,
        locked_by=None,
        locked_at=None,
        progress=0.0,
        error=None,
        dead=False,
        request_id=None,
        created_at=job.deadline,
        started_at=None,
        finished_at=None,
    )
