"""One attempt at a pipeline: each stage in its turn, and what it made kept before the next one begins.

for each stage ─┬─ not needed ──────────> skipped ──┐
                ├─ its key is known ────> cached ───┼──> one fenced transaction ──> the next stage
                └─ run, encode, store ──> made ─────┘
and at the end, what the stages have made is published by the job's own last transaction.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from app.database import Database
from app.errors import AppError, DatabaseUnavailable, NotFound, OutcomeUnknown
from app.events.catalogue.jobs import JobStageFailed, JobStageFinished
from app.events.failure import Failure
from app.jobs import repository as jobs, transitions
from app.jobs.kinds import Outcome, Postponed, Report, Retryable, Succeeded
from app.jobs.models import Job
from app.processing.failures import FAILURES, INVALID_PARAMS, outcome_of
from app.processing.input import Inputs
from app.processing.output import Answer, Limits, ResultWriter
from app.processing.publication import Product
from app.processing.queues import queue_of
from app.processing.results import require_kept
from app.processing.stages import kept
from app.processing.stages.kept import Kept
from app.processing.stages.pipeline import VERSION, Pipeline, Stage, UnusableStage, pipeline_of
from app.processing.stages.product import Gone, StageResults
from app.processing.stages.schemas import StageReceipt
from app.processing.work import Work
from app.processors.base import Processor, Source, Transient
from app.telemetry import faults

log = structlog.get_logger()

_ELSEWHERE = 30.0  # seconds until a job is tried again that needs a processor which this process lacks
_PAUSE = 1.0  # seconds between attempts to keep a result while the database is away
_LEASE_LOST = Retryable(Failure(code="lease-lost", detail="The job was somebody else's when a stage was finished."))


class PipelineRunner:
    """Runs pipelines of the processors. `queues` are those of their jobs, as a `Kind` has them."""

    def __init__(
        self,
        db: Database,
        processors: Mapping[str, Processor],
        inputs: Inputs,
        writer: ResultWriter,
        limits: Limits,
        *,
        queues: Mapping[str, int | None],
    ) -> None:
        """`queues`: the names of the pipelines, each with how many attempts are made at once."""
        self.db = db
        self.inputs = inputs
        self.writer = writer
        self.limits = limits
        self.queues = {queue_of(name, VERSION): at_once for name, at_once in queues.items()}
        self._processors = processors

    async def run(self, job: Job, work: Work, report: Report) -> Outcome:
        """Make one attempt. A process that lacks a stage leaves the job to others."""
        try:
            pipeline = pipeline_of(work.processor, work.stages, self._processors)
        except UnusableStage as error:
            log.warning("job.stage_missing", reason=str(error))
            return Postponed(_ELSEWHERE)
        async with AsyncExitStack() as files:
            return await _Attempt(self, job, work, pipeline, report, files).run()


class _LeaseLost(Exception):
    """The job was somebody else's when a stage was finished."""


class _Attempt:
    """What is known in one attempt: what its stages have made so far, and where it stands."""

    def __init__(
        self, runner: PipelineRunner, job: Job, work: Work, pipeline: Pipeline, report: Report, files: AsyncExitStack
    ) -> None:
        self._runner = runner
        self._job = job
        self._work = work
        self._pipeline = pipeline
        self._report = report
        self._files = files
        self._source: Source | None = None
        self._reads_others = False  # whether the stage has asked for a result that no stage before it made
        self._upstream = work.file.sha256
        self._weight_done = 0.0
        self._weight = sum(stage.weight for stage in pipeline.stages)
        self._made: dict[str, Kept | None] = {}
        self._receipts: list[StageReceipt] = []

    async def run(self) -> Outcome:
        """Run the stages that are left, and say what is to be published."""
        for stage in self._pipeline.stages:
            began = time.monotonic()
            structlog.contextvars.bind_contextvars(stage=stage.name)  # for what is logged of it later, too
            try:
                await self._stage(stage, began)
            except _LeaseLost:
                return _LEASE_LOST
            except FAILURES as error:
                return self._failed(stage, error, time.monotonic() - began)
        structlog.contextvars.unbind_contextvars("stage")
        results = StageResults(self._job, self._pipeline, self._receipts, self._made)
        try:
            try:
                await results.prepare(self._runner.inputs, self._runner.writer)
            except Gone as error:
                raise await self._forgotten(error.kept) from None
        except FAILURES as error:
            await results.discard(self._runner.writer)
            return outcome_of(error)
        return Succeeded(Product(results.made), partial(self._settled, results))

    async def _settled(self, results: StageResults, published: bool) -> None:  # noqa: FBT001 - of a callback
        if not published:
            await results.discard(self._runner.writer)

    async def _stage(self, stage: Stage, began: float) -> None:
        """Take a stage to its end. Raises FAILURES, and _LeaseLost."""
        try:
            params = stage.processor.params.model_validate(self._work.params.get(stage.name, {}))
        except ValidationError:  # accepted under other settings
            raise INVALID_PARAMS from None
        complete = params.model_dump(mode="json")
        if stage.conditional and not await self._needs(stage):
            await self._finish(stage, complete, began, None)
            return
        key = kept.key_of(self._job.owner_id, self._upstream, stage.name, stage.processor.version, complete)
        since = self._job.created_at if self._is_forced(stage) else kept.EVER
        found = await self._runner.db.read(partial(kept.find, key=key, job_id=self._job.id, since=since))
        if found:
            await self._finish(stage, complete, began, found)
            return
        made, stored = await self._run(stage, params, key)
        faults.hit("stage.after_run")
        try:
            await self._finish(stage, complete, began, made, stored, fresh=True)
        except OutcomeUnknown:
            raise  # it may be kept
        except (AppError, _LeaseLost):
            if stored:
                await self._runner.writer.discard(stored)
            raise

    async def _needs(self, stage: Stage) -> bool:
        """Whether the document needs a conditional stage."""
        if not stage.reads(self._work.file.content_type):
            return False
        needed: bool = await stage.processor.needed(await self._sourced())  # type: ignore[attr-defined]
        return needed

    def _is_forced(self, stage: Stage) -> bool:
        """Whether the stage is to be run though it was before, but for what this job has made of it."""
        return self._work.force is True or (self._work.force == "last" and stage is self._pipeline.stages[-1])

    async def _run(self, stage: Stage, params: Any, key: str) -> tuple[Kept, Answer | None]:
        """Run the processor. Returns what it made, and the file of that if it is large."""
        source, writer = await self._sourced(), self._runner.writer
        self._reads_others = False
        data = await stage.processor.run(source, params, partial(self._report_stage, stage))
        json = await writer.encoded(data, stage.processor.result, self._runner.limits.bytes_of(stage.processor))
        if self._reads_others:
            key = kept.key_of_job(key, self._job.id)
        if isinstance(json, str):
            return Kept(key, json, None, len(json.encode())), None
        stored = await writer.store(json, await writer.moment())
        return Kept(key, None, stored.file, stored.size), stored

    async def _finish(
        self,
        stage: Stage,
        params: dict[str, Any],
        began: float,
        made: Kept | None,
        stored: Answer | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        """Record that a stage is done, and keep what it made if that is `fresh`; None: it was skipped.

        Raises _LeaseLost, and what the database raises.
        """
        seconds = round(time.monotonic() - began, 3)
        self._weight_done += stage.weight
        progress, version = self._weight_done / self._weight, stage.processor.version
        cached = made is not None and not fresh
        job, input_sha256 = self._job, self._work.file.sha256

        def unit(conn: Connection) -> bool:
            if not transitions.note_progress(conn, job, progress):
                return False
            if made and fresh:
                if stored:
                    require_kept(stored, self._runner.limits.orphan_grace)
                kept.keep(conn, made, job.owner_id, input_sha256)
            elif made:
                kept.use(conn, made)
            event = JobStageFinished(
                attempt=job.tries,
                fence=job.fence,
                stage=stage.name,
                version=version,
                seconds=seconds,
                cached=cached,
                skipped=made is None,
            )
            jobs.record(conn, event, job)
            return True

        if not await self._write(unit):
            raise _LeaseLost
        faults.hit("stage.after_commit")
        self._report(progress)
        self._made[stage.name] = made
        self._upstream = made.key if made else self._upstream
        self._receipts.append(
            StageReceipt(
                name=stage.name,
                version=version,
                params=params,
                key=made and made.key,
                cached=cached,
                skipped=made is None,
                seconds=seconds,
                size=made and made.length,
            )
        )

    async def _write(self, unit: Any) -> bool:
        """Keep trying while the lease is ours, which cancels this when it is lost: the work is done."""
        while True:
            try:
                return bool(await self._runner.db.write(unit, urgent=True))
            except OutcomeUnknown:
                raise  # a second event could follow the first
            except DatabaseUnavailable:
                await asyncio.sleep(_PAUSE)

    async def _sourced(self) -> Source:
        """The document, from the first stage on that has to read it."""
        if self._source is None:
            path = await self._files.enter_async_context(self._runner.inputs.copy(self._work.file))
            source = self._runner.inputs.source(self._job, self._work, path)
            self._source = replace(source, find_result=partial(self._result, source))
        return self._source

    async def _result(self, source: Source, processor: str) -> dict[str, Any] | None:
        """What an earlier stage made; of a processor that is no earlier stage, what the document has of it."""
        if processor not in self._made:
            self._reads_others = True
            return await source.result(processor)
        made = self._made[processor]
        if made is None:
            return None
        try:
            return await self._runner.inputs.data(made.data, made.file)
        except NotFound:
            raise await self._forgotten(made) from None

    async def _forgotten(self, made: Kept) -> Transient:
        """Forget what is missing, so that the next attempt makes it anew, and return what this one fails with."""
        await self._runner.db.write(partial(kept.forget, kept=made))
        return Transient("stage-result-missing", "What an earlier stage made is missing, and is made anew.")

    def _report_stage(self, stage: Stage, fraction: float) -> None:
        """Report the progress of a stage as that of the job."""
        self._report((self._weight_done + max(0.0, min(1.0, fraction)) * stage.weight) / self._weight)

    def _failed(self, stage: Stage, error: Any, seconds: float) -> Outcome:
        """The outcome of an attempt that failed in a stage, whose name comes before the detail."""
        outcome = outcome_of(error)
        failure = Failure(code=outcome.error.code, detail=f"{stage.name}: {outcome.error.detail}")
        event = JobStageFailed(
            attempt=self._job.tries,
            fence=self._job.fence,
            stage=stage.name,
            version=stage.processor.version,
            seconds=round(seconds, 3),
            error=failure,
        )
        return replace(outcome, error=failure, value=event)
