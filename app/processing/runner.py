"""Runs jobs: claim, work, settle.

run(job_id) ── claim ──> lease ─┬─ processor at work ──> outcome ──> settle (fenced)
                                └─ heartbeat ──> lease lost: stop, settle nothing
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.database import Database
from app.documents.schemas import Document, Failure
from app.documents.service import owned, storage_key
from app.errors import AppError, NotFound, OutcomeUnknown
from app.processing import repository, settlement
from app.processing.schemas import Job
from app.processing.settlement import Failed, Faltered, Outcome, Released, Succeeded
from app.processing.watch import JobWatch
from app.processors.base import Permanent, Processor, Source, Transient
from app.settings import Settings
from app.storage.base import Storage
from app.telemetry import faults

log = structlog.get_logger()

TICK = 1.0  # seconds between looks at progress and lease


class Runner:
    """The places in one process where jobs run. A place is taken for as long as a job runs or is settled."""

    def __init__(
        self,
        *,
        db: Database,
        storage: Storage,
        processors: Mapping[str, Processor[Any]],
        watch: JobWatch,
        settings: Settings,
        name: str,
    ) -> None:
        self._name = name
        self._db = db
        self._storage = storage
        self._processors = processors
        self._watch = watch
        self._lease = settings.lease_seconds
        self._timeout = settings.job_timeout
        self._concurrency = settings.job_concurrency
        self._places = asyncio.Semaphore(settings.job_concurrency)
        self._turns = {each.name: asyncio.Semaphore(each.at_once or self._concurrency) for each in processors.values()}
        self.freed = asyncio.Event()
        self._known: set[UUID] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        self._at_work: set[asyncio.Task[Outcome]] = set()
        self._draining = False
        self._stopping = False

    @property
    def free(self) -> int:
        """How many more jobs could run at once; `freed` is set whenever that becomes more."""
        return 0 if self._draining else max(0, self._concurrency - len(self._known))

    async def run(self, job_id: UUID) -> None:
        """Run the job if it is due and nobody else has it. Raises nothing; cancelling the caller leaves it running."""
        if job_id in self._known:
            return
        self._known.add(job_id)
        try:
            async with self._places:
                if self._draining:
                    await self._pass_on(job_id)
                    return
                attempt = asyncio.create_task(self._attempt(job_id))
                self._attempts.add(attempt)
                attempt.add_done_callback(self._attempts.discard)
                await asyncio.shield(attempt)
        finally:
            self._known.discard(job_id)
            if self.free:
                self.freed.set()

    async def drain(self, seconds: float) -> None:
        """Claim no more; give running jobs this long to finish, then stop them and give them back."""
        self._draining = True
        faults.hit("shutdown.draining")
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        self._stopping = True
        for work in self._at_work:
            work.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def _attempt(self, job_id: UUID) -> None:
        faults.hit("job.before_claim")
        try:
            claimed = await self._db.write(partial(self._claim, job_id=job_id))
            if claimed is not None:
                job, document = claimed
                faults.hit("job.after_claim")
                structlog.contextvars.bind_contextvars(
                    request_id=job.request_id,
                    user_id=str(job.owner_id),
                    document_id=str(job.document_id),
                    job_id=str(job.id),
                )
                await self._hold(job, document)
        except AppError as error:
            log.warning("job.attempt_interrupted", job_id=str(job_id), reason=error.code)  # the sweeper will see to it
        except Exception:
            log.exception("job.attempt_broken", job_id=str(job_id))
        finally:
            self._watch.notify(job_id)

    def _claim(self, conn: Connection, job_id: UUID) -> tuple[Job, Document] | None:
        job = repository.claim(conn, job_id, self._name, self._lease)
        return (job, owned(conn, job.owner_id, job.document_id)) if job else None

    async def _pass_on(self, job_id: UUID) -> None:
        """Have another process announce the job at once, not only when our hint would be overdue."""
        with suppress(AppError):
            await self._db.write(lambda conn: repository.pass_on(conn, job_id))

    async def _hold(self, job: Job, document: Document) -> None:
        """Work under a lease that is kept up from beside the work."""
        progress = Progress()
        work = asyncio.create_task(self._work(job, document, progress))
        self._at_work.add(work)
        if self._stopping:  # claimed at the last moment
            work.cancel()
        heartbeat = asyncio.create_task(self._keep_lease(job, progress))
        try:
            await asyncio.wait([work, heartbeat], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.warning("job.stopped", reason="lease lost", fence=job.fence)
                return
            outcome = Released() if work.cancelled() else work.result()
            if isinstance(outcome, Released):
                faults.hit("shutdown.release")
            elif isinstance(outcome, Faltered) and job.attempt >= job.max_attempts:
                faults.hit("fail.after_last_try")
            await self._settle(job, outcome, heartbeat)
        finally:
            self._at_work.discard(work)
            for task in (work, heartbeat):
                task.cancel()
            await asyncio.wait([work, heartbeat])

    async def _settle(self, job: Job, outcome: Outcome, heartbeat: asyncio.Task[None]) -> None:
        """Keep trying while the lease is ours: a database that is away for a moment must not cost the work."""
        unsure = False
        while True:
            settle = partial(settlement.settle, job=job, outcome=outcome, worker=self._name, unsure=unsure)
            try:
                await self._db.write(settle, urgent=True)
            except AppError as error:
                unsure = unsure or isinstance(error, OutcomeUnknown)
                if heartbeat.done():
                    raise
                await asyncio.sleep(TICK)
            else:
                faults.hit("finish.after_commit")
                return

    async def _keep_lease(self, job: Job, progress: "Progress") -> None:
        """Renew the lease every third of it, and with every step of progress. Returns when it is lost."""
        held_until = time.monotonic() + self._lease
        shown, renew_at = 0.0, time.monotonic() + self._lease / 3
        while time.monotonic() < held_until:
            ended = await self._watch.wait(job.id, min(TICK, self._lease / 3))
            asked_at = time.monotonic()
            if not ended and asked_at < renew_at and progress.fraction == shown:
                continue
            fraction = progress.fraction
            with suppress(AppError):
                beat = partial(repository.heartbeat, job=job, lease=self._lease, progress=fraction)
                if not await self._db.write(beat, urgent=True):
                    return
                held_until, renew_at, shown = asked_at + self._lease, asked_at + self._lease / 3, fraction

    async def _work(self, job: Job, document: Document, progress: "Progress") -> Outcome:
        """Run the processor; whatever happens becomes an outcome."""
        try:
            processor = self._processors[job.processor]
            params = processor.params.model_validate(job.params)
            copy = self._storage.local_copy(storage_key(job.document_id))
            # The turn before the timeout: to wait for it is not the attempt's time.
            async with (
                self._turns[job.processor],
                asyncio.timeout(self._timeout),
                copy as path,
            ):
                return Succeeded(await processor.run(_source(document, path, job.attempt), params, progress.report))
        except Exception as error:  # noqa: BLE001 - a processor may raise anything
            return _outcome_of(error)


class Progress:
    """How far the work is, from 0 to 1. Never goes back."""

    def __init__(self) -> None:
        self.fraction = 0.0

    def report(self, fraction: float) -> None:
        faults.hit("job.midway")
        self.fraction = max(self.fraction, min(1.0, fraction))


def _outcome_of(error: Exception) -> Outcome:
    match error:
        case Permanent():
            return Failed(Failure(code=error.code, detail=error.detail))
        case NotFound():
            return Failed(Failure(code="file-missing", detail="The stored file is missing."))
        case Transient() | AppError():
            return Faltered(Failure(code=error.code, detail=error.detail))
        case TimeoutError():
            return Faltered(Failure(code="job-timeout", detail="The attempt exceeded its time limit."))
    log.error("job.processor_broke", exc_info=error)
    return Faltered(Failure(code="processor-error", detail="The processor failed unexpectedly."))


def _source(document: Document, path: Path, attempt: int) -> Source:
    assert document.sha256 is not None, "its bytes are verified"
    return Source(path, document.content_type, document.size, document.sha256, attempt)
