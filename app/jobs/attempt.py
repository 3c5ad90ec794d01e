"""One attempt at a job: work under a lease, and settle what comes of it.

run ─┬─ kind.run ──> outcome ──> settle (fenced)
     └─ keep lease ──> lost: stop, settle nothing
"""

import asyncio
import time
from functools import partial
from typing import Any

import structlog

from app.database import Database
from app.errors import AppError, OutcomeUnknown
from app.jobs import settlement, transitions
from app.jobs.kinds import Kind, Outcome, Refused, Released, Retryable, Succeeded
from app.jobs.models import Job
from app.jobs.outcome import CANCEL_TIMEOUT, TIMED_OUT, outcome_of_task, outcome_of_work
from app.jobs.watch import JobWatch
from app.telemetry import context, faults

log = structlog.get_logger()

_INTERVAL = 1.0  # seconds between checks of progress, and between attempts to settle


class Attempt:
    """An attempt at a job that was claimed for `lease` seconds from `claimed_at`, by the clock of `time.monotonic`."""

    def __init__(self, db: Database, watch: JobWatch, kind: Kind, job: Job, *, lease: float, claimed_at: float) -> None:
        self.job = job
        self.work: asyncio.Task[Outcome] | None = None
        self._db = db
        self._watch = watch
        self._kind = kind
        self._lease = lease
        self._lease_ends_at = claimed_at + lease  # for all that this process knows; 0: it was lost
        self._beat = min(_INTERVAL, lease / 3)  # seconds between checks of lease and progress
        self._began_at = time.monotonic()
        self._progress = 0.0
        self._stopping = False

    async def run(self) -> None:
        """Work and settle. Raises nothing: what is not settled is rescued when the lease has expired."""
        job = self.job
        context.request_id.set(job.request_id)
        structlog.contextvars.bind_contextvars(
            user_id=str(job.owner_id),
            document_id=str(job.document_id),
            job_id=str(job.id),
            processor=job.processor,
        )
        faults.hit("job.after_claim")
        try:
            await self._hold()
        except AppError as error:
            log.warning("job.attempt_interrupted", reason=error.code)
        except Exception:
            log.exception("job.attempt_broken")

    def stop(self) -> None:
        """Stop the work for a shutdown, and give the job back."""
        self._stopping = True
        if self.work:
            self.work.cancel()

    async def _hold(self) -> None:
        """Work under a lease that is renewed beside the work."""
        run = partial(self._kind.run, self.job, self._report)
        self.work = work = asyncio.create_task(outcome_of_work(run, self.job.queue, self._kind.timeout))
        if self._stopping:  # claimed at the last moment
            work.cancel()
        tasks: list[asyncio.Task[Any]] = [work]
        try:
            # Most jobs are done before there is anything to renew, or to show.
            await asyncio.wait(tasks, timeout=self._beat)
            if not work.done():
                tasks.append(asyncio.create_task(self._keep_lease()))
                longest = self._kind.timeout + CANCEL_TIMEOUT
                await asyncio.wait(tasks, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await self._settle(outcome_of_task(work, stopping=self._stopping))
            elif self._lease_ends_at:
                log.error("job.abandoned", queue=self.job.queue)  # it goes on although cancelled; its fence holds
                await self._settle(TIMED_OUT)
            else:
                reason = "no longer held: cancelled, or the lease was lost"
                log.info("job.stopped", reason=reason, fence=self.job.fence)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)

    def _report(self, fraction: float) -> None:
        """Note how far the work is, from 0 to 1. It never goes back."""
        faults.hit("job.midway")
        self._progress = max(self._progress, min(1.0, fraction))

    async def _keep_lease(self) -> None:
        """Renew the lease every third of it, and with every step of progress. Returns when it is lost."""
        shown, renew_at = 0.0, self._lease_ends_at - self._lease * 2 / 3
        ended = False
        while time.monotonic() < self._lease_ends_at:
            asked_at = time.monotonic()
            if ended or asked_at >= renew_at or self._progress != shown:
                progress = self._progress
                beat = partial(transitions.heartbeat, job=self.job, lease=self._lease, progress=progress)
                try:
                    if not await self._db.write(beat, urgent=True):
                        break
                except AppError as error:  # the lease is ours until its end
                    log.warning("job.lease_not_renewed", reason=error.code)
                except Exception:
                    log.exception("job.lease_not_renewed")
                else:
                    self._lease_ends_at, renew_at = asked_at + self._lease, asked_at + self._lease / 3
                    shown = progress
            ended = await self._watch.wait(self.job.id, self._beat)
        self._lease_ends_at = 0.0

    async def _settle(self, outcome: Outcome) -> None:
        """Keep trying while the lease is ours: a database that is away for a moment must not cost the work."""
        if isinstance(outcome, Released):
            faults.hit("shutdown.release")
        elif isinstance(outcome, Retryable) and self.job.tries >= self.job.max_tries:
            faults.hit("fail.after_last_try")
        settle = partial(settlement.settle, kind=self._kind, job=self.job, seconds=time.monotonic() - self._began_at)
        unsure, alone_with, made = False, None, outcome
        if isinstance(outcome, Succeeded) and outcome.alone:
            alone_with = self.job.owner_id
        while True:
            try:
                unit = partial(settle, outcome=outcome, unsure=unsure)
                held = await self._db.write(unit, urgent=alone_with is None, alone_with=alone_with)
            except Refused as refusal:
                outcome, alone_with = refusal.outcome, None
            except AppError as error:
                unsure = unsure or isinstance(error, OutcomeUnknown)
                if time.monotonic() > self._lease_ends_at:
                    raise
                await asyncio.sleep(_INTERVAL)
            else:
                faults.hit("finish.after_commit")
                if isinstance(made, Succeeded) and made.settled:
                    await made.settled(held and outcome is made)
                return
