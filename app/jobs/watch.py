"""Waiting for jobs to finish, at one query a second however many wait."""

import asyncio
from functools import partial
from uuid import UUID

import structlog

from app.database import Database
from app.errors import AppError
from app.jobs import repository

log = structlog.get_logger()

_POLL = 1.0  # seconds; what this process settles itself is known at once
_BATCH = 500


class JobWatch:
    """Wakes those who wait for a job, when it ends here (`notify`) or in another process (`run`)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self.closed = False

    def notify(self, job_id: UUID) -> None:
        """Say that the job has ended or is no longer its runner's."""
        for waiter in self._waiting.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, job_id: UUID, seconds: float) -> bool:
        """Return True when the job may have ended, and False after `seconds`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(waiter)
        try:
            done, _ = await asyncio.wait([waiter], timeout=seconds)
            return bool(done)
        finally:
            waiters = self._waiting[job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[job_id]

    def close(self) -> None:
        """Let those who wait on behalf of a client go: the process is about to stop."""
        self.closed = True
        for job_id in self._waiting:
            self.notify(job_id)

    async def run(self) -> None:
        """Look for jobs that ended elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(_POLL)
            waiting = list(self._waiting)
            try:
                for start in range(0, len(waiting), _BATCH):
                    some = waiting[start : start + _BATCH]
                    for job_id in await self._db.read(partial(repository.finished, job_ids=some)):
                        self.notify(job_id)
            except AppError as error:
                log.warning("watch.skipped", reason=error.code)
            except Exception:
                log.exception("watch.failed")
