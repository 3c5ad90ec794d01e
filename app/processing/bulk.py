"""Running again, or cancelling, all jobs that match a filter: counted first, then in parts, each job exactly once.

Whoever repeats a call, be it at the same time or after a failure midway, finds only what is left: a job that was run
again is no longer the latest of its document, and one that was cancelled is finished.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, exists, select
from uuid_utils.compat import uuid7

from app.auth.credentials import required
from app.auth.models import users
from app.auth.principal import Principal
from app.database import Database
from app.documents import repository as documents
from app.documents.lifecycle import Status
from app.documents.models import documents as documents_table
from app.documents.schemas import ProcessorChoice
from app.errors import AppError, Conflict, JobFinished, MoreJobsMatch
from app.jobs import listing, settlement
from app.jobs.kinds import Kinds
from app.jobs.listing import JobList
from app.jobs.models import Job, JobState, jobs
from app.jobs.watch import JobWatch
from app.processing.acceptance import Acceptance
from app.processing.bulk_schemas import (
    MAX_BULK,
    BulkResponse,
    CancelFilter,
    CancelRequest,
    RerunFilter,
    RerunRequest,
)
from app.processing.queues import KIND, queue_of
from app.processing.stages.pipeline import AD_HOC
from app.quotas import Quotas
from app.telemetry import faults
from app.web import pagination
from app.web.dependencies import service

PART = 100  # jobs in one transaction


class Done(NamedTuple):
    """The ids of jobs that were changed, or came of the change, and how many were not, by the code of the reason."""

    changed: list[UUID]
    skipped: "Counter[str]"


class _Chosen(NamedTuple):
    """How many jobs match, and those of them that this call changes, with the cursor of the rest."""

    matching: int
    jobs: list[Job]
    next_cursor: str | None


class BulkJobs:
    """Changes many jobs in one call. `wake` has somebody look for a job that was accepted."""

    def __init__(self, db: Database, kinds: Kinds, acceptance: Acceptance, watch: JobWatch, quotas: Quotas) -> None:
        self._db = db
        self._kinds = kinds
        self._acceptance = acceptance
        self._watch = watch
        self._quotas = quotas
        self.wake = acceptance.wake

    async def count(self, request: RerunRequest | CancelRequest) -> int:
        """How many jobs match; if they are more than MAX_BULK, one more than that. Raises SearchTooBroad, TooBusy."""
        wanted = _matching(request.filter)
        return await self._db.search(partial(listing.count, found=wanted, most=MAX_BULK + 1))

    async def rerun(self, request: RerunRequest, principal: Principal | None = None) -> tuple[BulkResponse, list[UUID]]:
        """Accept the same work anew for each document, as its owner would. Without `confirm`, only count.

        Returns the new jobs, too. Raises MoreJobsMatch, InvalidCursor, SearchTooBroad, TooBusy, StorageFull.
        """
        self._quotas.reserve.require()
        chosen = await self._chosen(_matching(request.filter), request.cursor, request.confirm)
        done = Done([], Counter())
        for owner_id, ids in _parts_of_owners(chosen.jobs):
            part = await self._db.write(required(principal, partial(self._rerun, ids=ids)), alone_with=owner_id)
            faults.hit("bulk.after_part")
            _add(done, part)
        return _response(chosen, done), done.changed

    async def cancel(self, request: CancelRequest, principal: Principal | None = None) -> BulkResponse:
        """Cancel them. Without `confirm`, only count. Raises MoreJobsMatch, InvalidCursor, SearchTooBroad, TooBusy."""
        chosen = await self._chosen(_matching(request.filter), request.cursor, request.confirm)
        done = Done([], Counter())
        for some in _parts(chosen.jobs):
            part = await self._db.write(required(principal, partial(self._cancel, some=some)))
            faults.hit("bulk.after_part")
            _add(done, part)
            for job_id in part.changed:
                self._watch.notify(job_id)
        return _response(chosen, done)

    async def _chosen(self, wanted: JobList, cursor: str | None, confirmed: int | None) -> _Chosen:
        """What to change, the oldest first. Raises MoreJobsMatch."""
        rest = wanted.after(listing.keyset_of(cursor), oldest_first=True)

        def work(conn: Connection) -> tuple[int, list[Job]]:
            found = [] if confirmed is None else listing.page(conn, rest, MAX_BULK + 1, oldest_first=True)
            return listing.count(conn, rest), found

        matching, found = await self._db.search(work)
        if confirmed is not None and matching > confirmed:
            raise MoreJobsMatch(f"{matching} jobs match, and {confirmed} were confirmed. Nothing was changed.")
        some, last = pagination.page(found, MAX_BULK)
        return _Chosen(matching, some, listing.cursor_of(last))

    def _rerun(self, conn: Connection, ids: Sequence[UUID]) -> Done:
        """Run those of the jobs again that still are to be."""
        still = select(jobs).where(jobs.c.id.in_(ids), *_IS_LAST_WORD)
        done = Done([], Counter())
        for row in conn.execute(still).mappings().all():
            try:
                done.changed.append(self._accept(conn, Job.of(row)))
            except AppError as refusal:
                done.skipped[refusal.code] += 1
        done.skipped[Conflict.code] += len(ids) - len(done.changed) - done.skipped.total()
        return done

    def _accept(self, conn: Connection, job: Job) -> UUID:
        """Accept the work of a job anew. Raises what the owner would get to see."""
        pipeline = job.args["stages"] if job.processor == AD_HOC else None
        asked = ProcessorChoice.model_construct(processor=job.processor, pipeline=pipeline, params=job.args["params"])
        wanted, new_id = self._acceptance.requested(asked), uuid7()
        assert job.document_id is not None, "a job of this kind has a document"
        document = documents.get(conn, job.owner_id, job.document_id)
        assert document is not None, "it was found by its document"
        self._acceptance.accept(conn, document, wanted, new_id)
        return new_id

    def _cancel(self, conn: Connection, some: Sequence[Job]) -> Done:
        ended = [job.id for job in some if settlement.cancel(conn, self._kinds, job.owner_id, job.id)]
        return Done(ended, Counter({JobFinished.code: len(some) - len(ended)}))


Bulk = Annotated[BulkJobs, service("bulk")]

# The failure of such a job is the state of its document: it is the latest, and nothing was begun since. Those of a
# disabled account stay as they are.
_IS_LAST_WORD = (
    jobs.c.kind == KIND,
    exists().where(users.c.id == jobs.c.owner_id, users.c.active),
    exists().where(
        documents_table.c.id == jobs.c.document_id,
        documents_table.c.job_id == jobs.c.id,
        documents_table.c.status == Status.FAILED,
        documents.IS_LIVE,
    ),
)


def _matching(given: RerunFilter | CancelFilter) -> JobList:
    """The list of the jobs to run again, or of those to cancel."""
    queues = queue_of(given.processor) if given.processor else None
    conditions: dict[str, Any] = given.model_dump(exclude={"processor"}) | {"queue_prefix": queues}
    if isinstance(given, CancelFilter):
        return listing.matching(KIND, **conditions, live=True)
    found = listing.matching(KIND, **conditions, state=JobState.FAILED)
    return found._replace(query=found.query.where(*_IS_LAST_WORD))


def _parts(found: Sequence[Job]) -> Iterator[Sequence[Job]]:
    return (found[start : start + PART] for start in range(0, len(found), PART))


def _parts_of_owners(found: Iterable[Job]) -> Iterator[tuple[UUID, list[UUID]]]:
    """An owner at a time, whose quota is checked: nothing else of theirs may be accepted meanwhile."""
    by_owner = attrgetter("owner_id")
    for owner_id, theirs in groupby(sorted(found, key=by_owner), key=by_owner):
        for part in _parts(list(theirs)):
            yield owner_id, [job.id for job in part]


def _add(done: Done, part: Done) -> None:
    done.changed.extend(part.changed)
    done.skipped.update(part.skipped)


def _response(chosen: _Chosen, done: Done) -> BulkResponse:
    return BulkResponse(
        matching=chosen.matching,
        changed=len(done.changed),
        skipped=dict(+done.skipped),
        next_cursor=chosen.next_cursor,
    )
