"""Claims of jobs by workers elsewhere: fairly, as processes of the service claim them, but under a detached lease."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.documents.schemas import StatedMetadata
from app.errors import AlreadyClaimed, NotFound
from app.files.removal import Removal
from app.jobs import claims, repository as jobs, settlement
from app.jobs.capacity import Capacity
from app.jobs.kinds import Kind, Waiting
from app.jobs.models import Job, JobState
from app.processing.work import Work
from app.remote import outputs
from app.remote.inputs import InputUrls
from app.remote.queues import RemoteQueues
from app.remote.schemas import ClaimedJob, ClaimNext
from app.remote.tokens import Claim, ClaimTokens
from app.telemetry import context, faults

Gone = Callable[[], Awaitable[bool]]
"""Tells whether the client has gone away meanwhile."""

_PAUSE = 0.02  # seconds after a look in vain: one takes all that was accepted meanwhile


class _Claimed(NamedTuple):
    """A job, and the keys of what attempts before this one have sent."""

    job: Job
    left: list[str]


@dataclass(frozen=True, slots=True)
class Claiming:
    """Hands out jobs. An attempt may take `timeout` seconds."""

    db: Database
    kind: Kind
    queues: RemoteQueues
    tokens: ClaimTokens
    input_urls: InputUrls
    removal: Removal
    timeout: float
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next(
        self, principal: Principal, processor: str, wanted: ClaimNext, base_url: str, gone: Gone
    ) -> ClaimedJob | None:
        """Claim the next job of a processor, once one is due, within the seconds that are wanted. `base_url` is the
        service's own.

        Raises NotFound.
        """
        named = self.queues.named(processor)
        if named is None:
            known = ", ".join(each.name for each in self.queues.processors.values()) or "none"
            raise NotFound(f"No such processor is run elsewhere; those that are: {known}.")
        queue, end = named[0], time.monotonic() + wanted.wait
        if wanted.version not in {None, named[1].version}:
            raise NotFound(f"It is version {named[1].version} of the processor that is run elsewhere.")
        claim = partial(self._claim, principal, wanted.worker, base_url, partial(self._next, queue=queue))
        woken = self.queues.woken
        found = await claim()
        while found is None and not self.queues.closed and (left := end - time.monotonic()) > 0:
            await self.queues.until(woken, left)
            async with self._looking:  # one after the other: after one looked in vain, the others need not
                if await gone():
                    return None
                woken = self.queues.woken
                if self.queues.in_vain.get(queue) is not woken:
                    found = await claim()
                    if found is None:
                        self.queues.in_vain[queue] = woken
                        await asyncio.sleep(_PAUSE)
        return found

    async def one(self, principal: Principal, job_id: UUID, worker: str, base_url: str) -> ClaimedJob | None:
        """Claim this very job. None: it is not due yet, or paused. Raises NotFound, AlreadyClaimed."""
        return await self._claim(principal, worker, base_url, partial(self._one, job_id=job_id))

    async def _claim(
        self, principal: Principal, worker: str, base_url: str, find: Callable[[Connection], Job | None]
    ) -> ClaimedJob | None:
        def work(conn: Connection) -> _Claimed | None:
            with context.acting(context.remote(worker)):
                job = find(conn)
                if job is None:
                    return None
                # In the transaction of the claim: no process of ours is ever its holder.
                settlement.settle(conn, self.kind, job, Waiting(self._lease(job)), seconds=0)
            return _Claimed(job, outputs.forget(conn, job.id, job.fence))

        faults.hit("job.before_claim")
        claimed = await self.db.write(required(principal, work))
        if claimed is None:
            return None
        faults.hit("job.after_claim")
        structlog.contextvars.bind_contextvars(job_id=str(claimed.job.id), document_id=str(claimed.job.document_id))
        if claimed.left:
            await self.removal.discarded(claimed.left)
        job = claimed.job
        assert job.locked_at is not None, "it was claimed just now"
        deadline = job.locked_at + timedelta(seconds=self.timeout)
        by = (worker, principal.owner_id, principal.credential_id)
        return await self._answer(job, Claim(job.id, job.fence, deadline, self._lease(job), *by), base_url)

    def _next(self, conn: Connection, queue: str) -> Job | None:
        if self.queues.pauses.forbid(queue):
            return None
        lease = self.queues.processors[queue].lease_seconds
        found = claims.claim_due(conn, Capacity(1, {queue: 1}), lease, self.queues.turns.since)
        return found[0] if found else None

    def _one(self, conn: Connection, job_id: UUID) -> Job | None:
        job = jobs.get(conn, job_id)
        if job is None or job.queue not in self.queues.processors:
            raise NotFound("There is no such job of a processor that is run elsewhere.")
        if job.state is not JobState.QUEUED:
            raise AlreadyClaimed
        if self.queues.pauses.forbid(job.queue):
            return None
        return claims.claim_one(conn, job_id, self.queues.queues, self.queues.processors[job.queue].lease_seconds)

    def _lease(self, job: Job) -> float:
        return min(self.queues.processors[job.queue].lease_seconds, self.timeout)

    async def _answer(self, job: Job, claim: Claim, base_url: str) -> ClaimedJob:
        assert job.document_id is not None, "a job of this kind has a document"
        work = Work.model_validate(job.args)
        return ClaimedJob(
            job_id=job.id,
            document_id=job.document_id,
            owner_id=job.owner_id,
            processor=work.processor,
            version=work.version,
            params=work.params,
            attempt=job.tries,
            token=self.tokens.issue(claim),
            lease_seconds=claim.lease,
            deadline=claim.deadline,
            filename=work.filename,
            content_type=work.file.content_type,
            metadata=StatedMetadata.model_construct(**work.metadata),
            inputs=await self.input_urls.of(work, claim, base_url),
        )
