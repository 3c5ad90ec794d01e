"""Runs jobs: pulls what is due from the database, works, settles.

wake ──> pull: claim what there is capacity for ──> lease ─┬─ kind.run ──> outcome ──> settle (fenced)
                                                           └─ heartbeat ──> lease lost: stop, settle nothing
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.database import Database
from app.errors import AppError, OutcomeUnknown
from app.events.catalogue import Failure
from app.jobs import containment, settlement, transitions
from app.jobs.containment import Exited
from app.jobs.kinds import Failed, Kind, Outcome, Released, Retryable
from app.jobs.models import Job
from app.jobs.transitions import EARLIEST
from app.jobs.watch import JobWatch
from app.telemetry import context, faults, metrics

log = structlog.get_logger()

CANCEL_TIMEOUT = 5.0  # seconds that a pull, or attempts that are cancelled, have to end in a drain
INTERVAL = 1.0  # seconds between checks of progress, and between attempts to settle
PAUSE = 0.005  # seconds between claims: one takes all that is accepted meanwhile, for hardly more than one job costs


class Runner:
    """The capacity of one process to run jobs. A job takes it up from its claim until it is settled."""

    def __init__(self, db: Database, kinds: Sequence[Kind], watch: JobWatch, *, capacity: int, lease: float) -> None:
        """`capacity`: jobs run at once; 0: none, ever. `lease`: seconds that a claim lasts without a heartbeat."""
        self._db = db
        self._kinds = {kind.name: kind for kind in kinds}
        self._limits = {queue: limit or capacity for kind in kinds for queue, limit in kind.queues.items()}
        self._watch = watch
        self._capacity = capacity
        self._lease = lease
        self._beat = min(INTERVAL, lease / 3)  # seconds between checks of lease and progress
        self._running: Counter[str] = Counter()  # attempts by queue
        self._attempts: set[asyncio.Task[None]] = set()
        self._work: dict[asyncio.Task[Any], Job] = {}
        self._woken = asyncio.Event()
        self._capacity_changed = asyncio.Event()
        self._pulling: asyncio.Task[None] | None = None
        self._more_is_due = False
        self._draining = False
        self._stopping = False
        self.due_since = EARLIEST  # jobs that were due earlier are claimed already: see transitions.poll

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
            self._capacity_changed.clear()
            await self._capacity_changed.wait()

    async def run(self) -> None:
        """Pull whenever woken, until cancelled."""
        containment.install(asyncio.get_running_loop())
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._pulling = asyncio.create_task(self.pull())
            await asyncio.shield(self._pulling)  # what it has claimed must be begun, or given back by `drain`
            self._pulling = None
            self._capacity_changed.set()
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
            lease=self._lease,
            due_since=self.due_since,
        )
        asked_at = time.monotonic()
        try:
            claimed = await self._db.write(claim)
        except AppError as error:
            log.warning("jobs.not_pulled", reason=error.code)  # the next poll wakes us again
            metrics.polls_failed.inc()
            return
        except Exception:
            log.exception("jobs.not_pulled")
            metrics.polls_failed.inc()
            return
        taken = Counter(job.queue for job in claimed)
        self._more_is_due = len(claimed) == self.free or any(
            limit and taken[queue] == limit for queue, limit in limits.items()
        )
        for job in claimed:
            self._begin(job, asked_at + self._lease)

    async def join(self) -> None:
        """Wait until the attempts under way have ended."""
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def drain(self, seconds: float) -> None:
        """Claim no more; give running jobs this long to finish, then stop them and give them back."""
        self._draining = True
        if self._pulling:
            await asyncio.wait([self._pulling], timeout=CANCEL_TIMEOUT)
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        self._stopping = True
        for work in self._work:
            work.cancel()
        if self._attempts:  # one that goes on all the same loses its lease
            await asyncio.wait(self._attempts, timeout=CANCEL_TIMEOUT)

    def _begin(self, job: Job, lease_ends_at: float) -> None:
        self._running[job.queue] += 1
        attempt = asyncio.create_task(self._attempt(job, Lease(lease_ends_at)))
        self._attempts.add(attempt)
        attempt.add_done_callback(partial(self._done, job))

    def _done(self, job: Job, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._running[job.queue] -= 1
        self._capacity_changed.set()
        self._watch.notify(job.id)
        if self._more_is_due:
            self.wake()

    async def _attempt(self, job: Job, lease: "Lease") -> None:
        context.request_id.set(job.request_id)
        structlog.contextvars.bind_contextvars(
            user_id=str(job.owner_id), document_id=str(job.document_id), job_id=str(job.id)
        )
        faults.hit("job.after_claim")
        try:
            await self._hold(job, lease)
        except AppError as error:
            log.warning("job.attempt_interrupted", reason=error.code)  # its lease will expire
        except Exception:
            log.exception("job.attempt_broken")

    async def _hold(self, job: Job, lease: "Lease") -> None:
        """Work under a lease that is renewed beside the work."""
        progress = Progress()
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
                longest = self._kinds[job.kind].timeout + CANCEL_TIMEOUT
                await asyncio.wait(tasks, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and lease.ends_at:
                log.error("job.abandoned", queue=job.queue)  # it goes on although it was cancelled; its fence holds
                await self._settle(job, _TIMED_OUT, lease)
                return
            if not work.done():
                log.info("job.stopped", reason="no longer held: cancelled, or the lease was lost", fence=job.fence)
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
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)

    async def _settle(self, job: Job, outcome: Outcome, lease: "Lease") -> None:
        """Keep trying while the lease is ours: a database that is away for a moment must not cost the work."""
        unsure = False
        while True:
            settle = partial(
                settlement.settle,
                kind=self._kinds[job.kind],
                job=job,
                outcome=outcome,
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
        limit = asyncio.timeout(kind.timeout)
        containment.contain()
        try:
            async with limit:
                return await kind.run(job, progress.report)
        except asyncio.CancelledError:
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            # Raised by the work, not by the interpreter: a signal's handler runs outside of any task here.
            return _exited(job, type(error).__name__)
        except BaseException as error:
            if limit.expired():
                return _TIMED_OUT
            if (exited := _exit_in(error)) is not None:
                return _exited(job, str(exited))
            log.exception("job.broke", queue=job.queue)
            return Retryable(Failure(code="processor-error", detail="The processor failed unexpectedly."))

    def _cancelled(self) -> Outcome:
        """What the end of a cancelled task means: a shutdown, or work that cancelled itself."""
        if self._stopping:
            return Released()
        return Retryable(Failure(code="processor-error", detail="The processor cancelled itself."))


_TIMED_OUT = Retryable(Failure(code="job-timeout", detail="The attempt exceeded its time limit."))


def _exited(job: Job, error: str) -> Outcome:
    log.error("job.exited", queue=job.queue, error=error)
    return Failed(Failure(code="processor-exited", detail=f"The work raised {error}."))


def _exit_in(error: BaseException) -> Exited | None:
    """The Exited that was raised, by itself or in a group."""
    if isinstance(error, Exited):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next(filter(None, map(_exit_in, inner)), None)


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
