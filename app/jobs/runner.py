"""Pulls due jobs from the database and runs them: wake ──> pull: claim what there is capacity for ──> attempts."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.database import Database
from app.errors import AppError
from app.jobs import claims, containment
from app.jobs.attempt import Attempt
from app.jobs.capacity import Capacity
from app.jobs.kinds import Kind
from app.jobs.models import Job
from app.jobs.outcome import CANCEL_TIMEOUT
from app.jobs.pauses import Pauses
from app.jobs.turns import Turns
from app.jobs.watch import JobWatch
from app.limiter import Usage
from app.telemetry import faults, metrics

log = structlog.get_logger()

_PAUSE = 0.005  # seconds between claims: one takes all that is accepted meanwhile, for hardly more than one job costs


class Runner:
    """The capacity of one process to run jobs. A job takes it up from its claim until it is settled."""

    elsewhere = False

    def __init__(
        self, db: Database, kinds: Sequence[Kind], watch: JobWatch, turns: Turns, *, capacity: int, lease: float
    ) -> None:
        """`capacity`: jobs run at once; 0: none, ever. `lease`: seconds that a claim lasts without a heartbeat."""
        self._db = db
        self._kinds = {kind.name: kind for kind in kinds}
        self._limits = {queue: limit or capacity for kind in kinds for queue, limit in kind.queues.items()}
        self._watch = watch
        self._capacity = capacity
        self._lease = lease
        self._attempts: dict[asyncio.Task[None], Attempt] = {}
        self._woken = asyncio.Event()
        self._capacity_changed = asyncio.Event()
        self._pulling: asyncio.Task[None] | None = None
        self._more_is_due = False
        self.turns = turns
        self.pauses = Pauses()
        self._draining = False
        self._stopping = False

    @property
    def free(self) -> int:
        """How many more jobs could run at once."""
        return 0 if self._draining else self._capacity - len(self._attempts)

    @property
    def usage(self) -> Usage:
        """How many jobs run, and how many could."""
        return Usage(len(self._attempts), self._capacity)

    @property
    def queues(self) -> Sequence[str]:
        """The queues that this process can serve, whether or not it has capacity."""
        return list(self._limits)

    def wake(self, job_id: UUID | None = None) -> None:
        """Pull soon: a job may be due, such as this one. To lose a wake-up, or get it twice, changes nothing."""
        self._woken.set()

    def describe(self, task: asyncio.Task[Any] | None) -> Mapping[str, Any]:
        """The log keys of the job that the task works on; for another task, the queues of all jobs under way."""
        attempts = list(self._attempts.values())
        for attempt in attempts:
            if task and attempt.work is task:
                return {"queue": attempt.job.queue, "job_id": str(attempt.job.id)}
        return {"queues": sorted({attempt.job.queue for attempt in attempts})}

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
            await asyncio.sleep(_PAUSE)

    async def pull(self) -> None:
        """Claim as many due jobs as there is capacity for, and begin to work on them. Raises nothing.

        Nothing is claimed from what is paused.
        """
        running = [(attempt.job.owner_id, attempt.job.queue) for attempt in self._attempts.values()]
        limits = {queue: limit for queue, limit in self._limits.items() if not self.pauses.forbid(queue)}
        capacity = Capacity(self._capacity, limits, running)
        self._more_is_due = True  # until a claim leaves capacity unused
        if self._draining or not capacity.any_free:
            return
        faults.hit("job.before_claim")
        claim = partial(claims.claim_due, capacity=capacity, lease=self._lease, turn_since=self.turns.since)
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
        for job in claimed:
            capacity.take(job.owner_id, job.queue)
            self._begin(job, asked_at)
        self._more_is_due = capacity.exhausted

    async def join(self) -> None:
        """Wait until the attempts under way have ended."""
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def drain(self, seconds: float) -> None:
        """Claim no more; give running jobs this long to finish, then stop them and give them back. Once is enough."""
        if self._stopping:
            return
        self._draining = True
        if self._pulling:
            await asyncio.wait([self._pulling], timeout=CANCEL_TIMEOUT)
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)
        self._stopping = True
        for attempt in self._attempts.values():
            attempt.stop()
        if self._attempts:  # one that goes on all the same loses its lease
            await asyncio.wait(self._attempts, timeout=CANCEL_TIMEOUT)

    def _begin(self, job: Job, claimed_at: float) -> None:
        kind = self._kinds[job.kind]
        attempt = Attempt(self._db, self._watch, kind, job, lease=self._lease, claimed_at=claimed_at)
        if self._stopping:  # claimed at the last moment
            attempt.stop()
        task = asyncio.create_task(attempt.run())
        self._attempts[task] = attempt
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        attempt = self._attempts.pop(task)
        self._capacity_changed.set()
        self._watch.notify(attempt.job.id)
        if self._more_is_due:
            self.wake()
