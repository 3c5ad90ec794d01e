"""What processes are at, and how the work of the last while went.

Of what belongs to accounts it tells ids and codes only, so that watching it is no reading that has to be recorded.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Connection, Row, Select, case, func, select

from app.database import Database, time_of
from app.events import events
from app.events.catalogue.jobs import JobFailed, JobStarted, JobSucceeded
from app.jobs.models import IS_HELD, JobState, jobs
from app.operators.status import AtWork, at_work
from app.processing.queues import KIND, processor_of

MOST_HELD = 200  # attempts that are shown
RECENT_JOBS = 500
RECENT_EVENTS = 10_000  # among which the recent jobs are looked for: no index has the jobs in the order of their ends
LATELY = timedelta(minutes=5)  # for which the rate is told
_FAILURES = 5  # of each processor that are shown


class Attempt(NamedTuple):
    """A job that a process holds. `begun`: this attempt, if that is known; `heartbeat`: the lease was renewed then."""

    process: str
    job_id: UUID
    document_id: UUID | None
    processor: str
    state: JobState
    tries: int
    begun: datetime | None
    heartbeat: datetime | None


class Ended(NamedTuple):
    """A job that succeeded or gave up."""

    job_id: UUID
    processor: str
    succeeded: bool
    code: str | None
    accepted: datetime
    begun: datetime | None
    ended: datetime

    @property
    def wait(self) -> float | None:
        """Seconds from when it was accepted until its first attempt."""
        return (self.begun - self.accepted).total_seconds() if self.begun else None

    @property
    def run(self) -> float | None:
        """Seconds from its first attempt until it ended, with the attempts and the waits between."""
        return (self.ended - self.begun).total_seconds() if self.begun else None


class Quantiles(NamedTuple):
    """Seconds that so many of a hundred jobs did not exceed, by the nearest rank."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Iterable[float | None]) -> Self | None:
        """Those of the values that are known; None without any."""
        known = sorted(max(0.0, each) for each in seconds if each is not None)
        return cls(*(known[math.ceil(len(known) * share / 100) - 1] for share in (50, 95, 99))) if known else None


class Record(NamedTuple):
    """How the recent jobs of one processor went. `per_minute`: those that ended LATELY."""

    jobs: int
    succeeded: int
    per_minute: float
    wait: Quantiles | None
    run: Quantiles | None
    failures: list[Ended]


# The claim is an event of the document. A job without a document has none; the first claim is in its row.
_CLAIMED = (
    select(events.c.at)
    .where(events.c.document_id == jobs.c.document_id, events.c.job_id == jobs.c.id, events.c.event == JobStarted.name)
    .order_by(events.c.seq.desc())
    .limit(1)
    .scalar_subquery()
)
_BEGUN = func.coalesce(_CLAIMED, case((jobs.c.fence == 1, jobs.c.started_at))).label("begun")


class Workload:
    """Reads what processes are at, and what they have done."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def held(self) -> dict[str, list[Attempt]]:
        """The jobs that are held, up to MOST_HELD, by the process that holds them: the longest attempt first."""
        found = sorted(await self._db.read(held), key=lambda each: (each.process, each.begun is None, each.begun))
        return {name: list(theirs) for name, theirs in groupby(found, key=attrgetter("process"))}

    async def now(self) -> AtWork:
        """The processes, and the queues that they serve."""
        return await self._db.read(at_work)

    async def records(self) -> dict[str, Record]:
        """How the recent jobs went, by their processor: the last RECENT_JOBS among the last RECENT_EVENTS."""
        return await self._db.read(records)


def held(conn: Connection) -> list[Attempt]:
    """The jobs whose leases end first."""
    shown = (jobs.c.id, jobs.c.document_id, jobs.c.queue, jobs.c.state, jobs.c.tries, jobs.c.locked_by)
    query = select(*shown, _BEGUN, jobs.c.locked_at).where(IS_HELD)
    return [_attempt(row) for row in _rows(conn, query.order_by(jobs.c.locked_until).limit(MOST_HELD))]


def records(conn: Connection) -> dict[str, Record]:
    """How the recent jobs went, by their processor."""
    latest = conn.scalar(select(func.max(events.c.seq))) or 0
    found = [_ended(row) for row in _rows(conn, _recent(latest - RECENT_EVENTS))]
    now = time_of(conn)
    since = max([now - LATELY, *_reaches_back(conn, latest - RECENT_EVENTS, found)])
    rate = _rate(since, max(1.0, (now - since).total_seconds()) / 60)
    by_processor = attrgetter("processor")
    each = groupby(sorted(found, key=by_processor), key=by_processor)  # which keeps the order of time within
    return {name: _record(list(theirs), rate) for name, theirs in each}


def _recent(after: int) -> Select[Any]:
    shown = (jobs.c.id, jobs.c.queue, jobs.c.state, jobs.c.error, jobs.c.created_at, jobs.c.started_at)
    ends = events.c.event.in_([JobSucceeded.name, JobFailed.name])
    query = select(*shown, jobs.c.finished_at).join_from(events, jobs, jobs.c.id == events.c.job_id)
    query = query.where(events.c.seq > after, ends, jobs.c.kind == KIND, jobs.c.finished_at.is_not(None))
    return query.order_by(events.c.seq.desc()).limit(RECENT_JOBS)


def _reaches_back(conn: Connection, after: int, found: Sequence[Ended]) -> list[datetime]:
    """From when on the recent jobs are all that ended, where that is known to be later than the first of all."""
    first = conn.scalar(select(events.c.at).where(events.c.seq > after).order_by(events.c.seq).limit(1))
    by_events = [first] if first and after > 0 else []
    return [*by_events, found[-1].ended] if len(found) == RECENT_JOBS else by_events


def _rate(since: datetime, minutes: float) -> Callable[[Sequence[Ended]], float]:
    return lambda some: sum(each.ended >= since for each in some) / minutes


def _record(theirs: list[Ended], rate: Callable[[Sequence[Ended]], float]) -> Record:
    failures = [each for each in theirs if not each.succeeded]
    return Record(
        jobs=len(theirs),
        succeeded=len(theirs) - len(failures),
        per_minute=rate(theirs),
        wait=Quantiles.of(each.wait for each in theirs),
        run=Quantiles.of(each.run for each in theirs),
        failures=failures[:_FAILURES],
    )


def _rows(conn: Connection, query: Select[Any]) -> Sequence[Row[Any]]:
    return conn.execute(query).all()


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        process=row.locked_by or "",
        job_id=row.id,
        document_id=row.document_id,
        processor=processor_of(row.queue),
        state=JobState(row.state),
        tries=row.tries,
        begun=row.begun,
        heartbeat=row.locked_at,
    )


def _ended(row: Row[Any]) -> Ended:
    return Ended(
        job_id=row.id,
        processor=processor_of(row.queue),
        succeeded=row.state == JobState.SUCCEEDED,
        code=row.error["code"] if row.error else None,
        accepted=row.created_at,
        begun=row.started_at,
        ended=row.finished_at,
    )
