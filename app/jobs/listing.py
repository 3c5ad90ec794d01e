"""Lists of jobs, of one owner or of all: any filter, a page at a time.

An index serves the order by time, with an owner, with a document, of the dead, and of those that failed or were
cancelled. Jobs that are not finished are few compared with all: they are found by their state, and then sorted.
"""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, tuple_

from app.database import Database, without_index
from app.jobs.models import IS_HELD, IS_LIVE, IS_QUEUED, IS_UNSUCCESSFUL, LIVE, UNSUCCESSFUL, Job, JobState, jobs
from app.web import pagination
from app.web.pagination import Keyset

_ORDER = "jobs"
_MOMENT = jobs.c.created_at


class JobList(NamedTuple):
    """Jobs that match filters: the query, and the columns that tell a job's position among them.

    `slow`: a page may take long, because more is read than it has.
    """

    query: Select[Any]
    position: tuple[ColumnElement[Any], ColumnElement[Any]]
    slow: bool

    def after(self, keyset: Keyset | None, *, oldest_first: bool = False) -> "JobList":
        """The rest of the list, from the job at this position on."""
        if keyset is None:
            return self
        end = tuple_(bindparam("at", keyset.value, _MOMENT.type), bindparam("last", keyset.id, jobs.c.id.type))
        position = tuple_(*self.position)
        return self._replace(query=self.query.where(position > end if oldest_first else position < end))


class Listed(NamedTuple):
    """A page of a list, the cursor of the next one, and the length of the list if it was counted."""

    items: list[Job]
    next_cursor: str | None
    total: int | None


def matching(
    kind: str,
    owner_id: UUID | None = None,
    *,
    state: JobState | None = None,
    live: bool = False,
    dead: bool | None = None,
    document_id: UUID | None = None,
    queue_prefix: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> JobList:
    """The jobs of a kind that match every filter that is given; without an owner, those of all.

    `queue_prefix` is the beginning of the queue's name, and `live` are those that are not finished.
    """
    indexed = owner_id is not None or document_id is not None
    query, unsorted = select(jobs).where(jobs.c.kind == kind), False
    if owner_id is not None:
        # SQLite would read all that the owner has: it does not know that a document has few.
        owner = jobs.c.owner_id if document_id is None else without_index(jobs.c.owner_id)
        query = query.where(owner == owner_id)
    if state is not None and (indexed or dead):
        # The index of the dead holds fewer than that of any state.
        query = query.where((without_index(jobs.c.state) if dead else jobs.c.state) == state)
    elif state is not None:
        query, unsorted = query.where(*_of_all(state)), state.live
    if live:
        # SQLite would read all that the owner has: it does not know that few of them are not finished.
        query, unsorted = query.where(jobs.c.state.in_(LIVE) if indexed else IS_LIVE), True
    if dead is not None:
        query = query.where(jobs.c.dead.is_(dead))
    if document_id is not None:
        query = query.where(jobs.c.document_id == document_id)
    if queue_prefix is not None:
        beginning = func.substr(jobs.c.queue, 1, len(queue_prefix))  # LIKE ignores case on SQLite
        query = query.where(beginning == queue_prefix)
    position = (without_index(_MOMENT) if unsorted else _MOMENT, jobs.c.id)
    if created_after is not None:
        query = query.where(position[0] > created_after)
    if created_before is not None:
        query = query.where(position[0] < created_before)
    filtered = queue_prefix is not None or live or (state is not None and not indexed)
    return JobList(query, position, slow=filtered and document_id is None)


def _of_all(state: JobState) -> list[ColumnElement[bool]]:
    """The conditions for the jobs of all owners in a state, so that they are found by the index that there is."""
    if state is JobState.QUEUED:
        return [IS_QUEUED]
    if state.live:
        return [IS_HELD, jobs.c.state == state]
    if state in UNSUCCESSFUL:
        return [IS_UNSUCCESSFUL, jobs.c.state == state]
    return [without_index(jobs.c.state) == state]  # most are


def count(conn: Connection, found: JobList, most: int | None = None) -> int:
    """How many jobs there are in the list; with `most`, no more than that are looked for."""
    counted = found.query.with_only_columns(jobs.c.id, maintain_column_froms=True).limit(most).subquery()
    return conn.scalar(select(func.count()).select_from(counted)) or 0


def page(conn: Connection, found: JobList, limit: int, *, oldest_first: bool = False) -> list[Job]:
    """The first jobs of the list, up to `limit`: the newest, or the oldest."""
    order = found.position if oldest_first else [each.desc() for each in found.position]
    return [Job.of(row) for row in conn.execute(found.query.order_by(*order).limit(limit)).mappings()]


def keyset_of(cursor: str | None) -> Keyset | None:
    """The position in a cursor of `cursor_of`. Raises InvalidCursor."""
    return pagination.decode(cursor, _ORDER, datetime) if cursor else None


def cursor_of(last: Job | None) -> str | None:
    """The cursor of the page after this job."""
    return pagination.encode(_ORDER, last.created_at, last.id) if last else None


async def find(db: Database, found: JobList, limit: int, cursor: str | None, *, counted: bool) -> Listed:
    """A page of the list, newest first, which is also `counted` if asked for.

    Raises InvalidCursor, SearchTooBroad, TooBusy.
    """
    rest = found.after(keyset_of(cursor))

    def work(conn: Connection) -> tuple[list[Job], int | None]:
        return page(conn, rest, limit + 1), count(conn, found) if counted else None

    rows, total = await (db.search if counted or found.slow else db.read)(work)
    items, last = pagination.page(rows, limit)
    return Listed(items, cursor_of(last), total)
