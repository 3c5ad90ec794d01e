"""Runs jobs: pulls what is due from the database, works, settles.

wake ──> pull: claim what there is capacity for ──> lease ─┬─ kind.run ──> outcome ──> settle (fenced)
                                                           └─ heartbeat ──> lease lost: stop, settle nothing
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.database import Database
from app.errors import AppError, OutcomeUnknown
from app.jobs import settlement, transitions
from app.jobs.kinds import Failed, Kind, Outcome, Released, Retryable
from app.jobs.models import Failure, Job
from app.jobs.watch import JobWatch
from app.telemetry import context, faults

log = structlog.get_logger()

INTERVAL = 1.0  # seconds between looks at progress, and between attempts to settle
PAUSE = (
    0.005  # seconds between two claims: one takes all that is accepted meanwhile, for hardly more than one job costs
)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Runner:
    """The capacity of one process to run jobs. A job takes it up from its claim until it is settled."""

    def __init__(
        self, db: Database, kinds: Sequence[Kind], watch: JobWatch, *, capacity: int, lease: float, name: str
    ) -> None:
        """`capacity`: jobs run at once; 0: none, ever. `lease`: seconds that a claim lasts without a heartbeat."""
        self._db = db
        self._kinds = {kind.name: kind for kind in kinds}
        self._limits = {queue: limit or capacity for kind in kinds for queue, limit in kind.queues.items()}
        self._watch = watch
        self._capacity = capacity
        self._lease = lease
        self._beat = min(INTERVAL, lease / 3)  # seconds between looks at lease and progress
        self._actor = f"worker:{name}"
        self._running: Counter[str] = Counter()  # attempts by queue
        self._attempts: set[asyncio.Task[None]] = set()
        self._work: dict[asyncio.Task[Any], Job] = {}
        self._woken = asyncio.Event()
        self._freed = asyncio.Event()
        self._pulling = False
        self._more_is_due = False
        self._draining = False
        self._stopping = False
        self.due_since = EARLIEST  # what was due before this moment is claimed: see transitions.look

    @property
    def free(self) -> int:
        """How many more jobs could run at once."""
        return 0 if self._draining else self._capacity - self._running.total()

    @property
    def queues(self) -> Sequence[str]:
        """The queues that this process can serve, whether or not it has capacity."""
        return list(self._limits)

    def wake(self, job_id: UUID | None = None) -> None:
        """Pull soon: a job may be due, such as this one. To lose a wake-up, or get it twice, changes nothing."""
        self._woken.set()

    def describe(self, task: asyncio.Task[Any] | None) -> Mapping[str, Any]:
        """The log keys of the job that the task works on; for another task, the queues of all jobs under way."""
        job = self._work.get(task) if task else None
        if job:
            return {"queue": job.queue, "job_id": str(job.id)}
        return {"queues": sorted({job.queue for job in list(self._work.values())})}

    async def until_free(self) -> None:
        """Return when there is capacity for one more job, and no wake-up that has not been followed yet."""
        while not self.free or self._woken.is_set() or self._pulling:
            self._freed.clear()
            await self._freed.wait()

    async def run(self) -> None:
        """Pull whenever woken, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._pulling = True
            await self.pull()
            self._pulling = False
            self._freed.set()
            await asyncio.sleep(PAUSE)

    async def pull(self) -> None:
        """Claim as many due jobs as there is capacity for, and begin to work on them. Raises nothing."""
        limits = {queue: limit - self._running[queue] for queue, limit in self._limits.items()}
        limits = {queue: min(limit, self.free) for queue, limit in limits.items()}
        self._more_is_due = True  # until a claim leaves capacity unused
        if not self.free or not any(limits.values()):
            return
        faults.hit("job.before_claim")
        claim = partial(
            transitions.claim_due,
            limits=limits,
            limit=self.free,
            actor=self._actor,
            lease=self._lease,
            due_since=self.due_since,
        )
        try:
            claimed = await self._db.write(claim)
        except AppError as error:
            log.warning("jobs.not_pulled", reason=error.code)  # the next look wakes us again
            return
        taken = Counter(job.queue for job in claimed)
        self._more_is_due = len(claimed) == self.free or any(
            limit and taken[queue] == limit for queue, limit in limits.items()
        )
        for job in claimed:
            self._begin(job)

    async def join(self) -> None:
        """Wait until the attempts under way have ended."""
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def drain(self, seconds: float) -> None:
        """Claim no more; give running jobs this long to finish, then stop them and give them back."""
        self._draining = True
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        self._stopping = True
        for work in self._work:
            work.cancel()
        await self.join()

    def _begin(self, job: Job) -> None:
        self._running[job.queue] += 1
        attempt = asyncio.create_task(self._attempt(job))
        self._attempts.add(attempt)
        attempt.add_done_callback(partial(self._done, job))

    def _done(self, job: Job, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._running[job.queue] -= 1
        self._freed.set()
        self._watch.notify(job.id)
        if self._more_is_due:
            self.wake()

    async def _attempt(self, job: Job) -> None:
        context.request_id.set(job.request_id)
        context.actor.set(self._actor)
        structlog.contextvars.bind_contextvars(
            user_id=str(job.owner_id), document_id=str(job.document_id), job_id=str(job.id)
        )
        faults.hit("job.after_claim")
        try:
            await self._hold(job)
        except AppError as error:
            log.warning("job.attempt_interrupted", reason=error.code)  # its lease will expire
        except Exception:
            log.exception("job.attempt_broken")

    async def _hold(self, job: Job) -> None:
        """Work under a lease that is renewed beside the work."""
        lease, progress = Lease(time.monotonic() + self._lease), Progress()
        work = asyncio.create_task(self._outcome(job, progress))
        self._work[work] = job
        if self._stopping:  # claimed at the last moment
            work.cancel()
        tasks: list[asyncio.Task[Any]] = [work]
        try:
            # Most jobs are done before there is anything to renew, or to show.
            await asyncio.wait(tasks, timeout=self._beat)
            if not work.done():
                tasks.append(asyncio.create_task(self._keep_lease(job, lease, progress)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.warning("job.stopped", reason="lease lost", fence=job.fence)
                return
            outcome = self._cancelled() if work.cancelled() else work.result()
            if isinstance(outcome, Released):
                faults.hit("shutdown.release")
            elif isinstance(outcome, Retryable) and job.tries >= job.max_tries:
                faults.hit("fail.after_last_try")
            await self._settle(job, outcome, lease)
        finally:
            del self._work[work]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _settle(self, job: Job, outcome: Outcome, lease: "Lease") -> None:
        """Keep trying while the lease is ours: a database that is away for a moment must not cost the work."""
        unsure = False
        while True:
            settle = partial(
                settlement.settle,
                kind=self._kinds[job.kind],
                job=job,
                outcome=outcome,
                actor=self._actor,
                unsure=unsure,
            )
            try:
                await self._db.write(settle, urgent=True)
            except AppError as error:
                unsure = unsure or isinstance(error, OutcomeUnknown)
                if time.monotonic() > lease.ends_at:
                    raise
                await asyncio.sleep(INTERVAL)
            else:
                faults.hit("finish.after_commit")
                return

    async def _keep_lease(self, job: Job, lease: "Lease", progress: "Progress") -> None:
        """Renew the lease every third of it, and with every step of progress. Returns when it is lost."""
        shown, renew_at = 0.0, lease.ends_at - self._lease * 2 / 3
        ended = False
        while time.monotonic() < lease.ends_at:
            asked_at = time.monotonic()
            if ended or asked_at >= renew_at or progress.fraction != shown:
                fraction = progress.fraction
                with suppress(AppError):
                    beat = partial(transitions.heartbeat, job=job, lease=self._lease, progress=fraction)
                    if not await self._db.write(beat, urgent=True):
                        break
                    lease.ends_at, renew_at, shown = asked_at + self._lease, asked_at + self._lease / 3, fraction
            ended = await self._watch.wait(job.id, self._beat)
        lease.ends_at = 0.0

    async def _outcome(self, job: Job, progress: "Progress") -> Outcome:
        """Make one attempt; whatever it raises becomes an outcome."""
        kind = self._kinds[job.kind]
        try:
            async with asyncio.timeout(kind.timeout):
                return await kind.run(job, progress.report)
        except TimeoutError:
            return Retryable(Failure(code="job-timeout", detail="The attempt exceeded its time limit."))
        except (SystemExit, KeyboardInterrupt) as error:
            # Raised by the work, not by the interpreter: a signal's handler runs outside of any task here.
            log.exception("job.exited", queue=job.queue)
            detail = f"The work raised {type(error).__name__}."
            return Failed(Failure(code="processor-exited", detail=detail))
        except Exception:
            log.exception("job.broke", queue=job.queue)
            return Retryable(Failure(code="processor-error", detail="The processor failed unexpectedly."))

    def _cancelled(self) -> Outcome:
        """What the end of a cancelled task means: a shutdown, or work that cancelled itself."""
        if self._stopping:
            return Released()
        return Retryable(Failure(code="processor-error", detail="The processor cancelled itself."))


class Lease:
    """When the lease of a job ends, by the clock of `time.monotonic`, for all that this process knows."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at


class Progress:
    """How far the work is, from 0 to 1. Never goes back."""

    def __init__(self) -> None:
        self.fraction = 0.0

    def report(self, fraction: float) -> None:
        """Note how far the work is."""
        faults.hit("job.midway")
        self.fraction = max(self.fraction, min(1.0, fraction))
