"""What operators see of jobs, and how they cancel one."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection

from app.auth.principal import Principal
from app.database import Database
from app.errors import NotFound
from app.jobs import listing, repository
from app.operators.schemas import AnyJob, AnyJobPage, JobsFilters
from app.processing import jobs
from app.processing.queues import KIND
from app.processing.service import ProcessingService


class AllJobs:
    """Shows the jobs of all accounts, and cancels them."""

    def __init__(self, db: Database, processing: ProcessingService) -> None:
        self._db = db
        self._processing = processing

    async def find(self, filters: JobsFilters, limit: int, cursor: str | None, *, count: bool = False) -> AnyJobPage:
        """A page of them, newest first. Raises InvalidCursor, SearchTooBroad, TooBusy."""
        wanted = listing.matching(KIND, **filters.conditions)
        found = await jobs.find(self._db, wanted, limit, cursor, count=count)
        return AnyJobPage(items=AnyJob.each(found.items), next_cursor=found.next_cursor, total=found.total)

    async def get(self, job_id: UUID) -> AnyJob:
        """One job. Raises NotFound."""

        def work(conn: Connection) -> AnyJob:
            job = repository.get(conn, job_id)
            if job is None or job.kind != KIND:
                raise NotFound
            return AnyJob.of(jobs.numbered(conn, job))

        return await self._db.read(work)

    async def cancel(self, principal: Principal, job_id: UUID) -> AnyJob:
        """End a live job as its owner would. Raises NotFound, JobFinished."""
        owner = replace(principal, owner_id=(await self.get(job_id)).owner_id)
        await self._processing.cancel(owner, job_id)
        return await self.get(job_id)
