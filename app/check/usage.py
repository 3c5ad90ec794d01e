"""Whether what is counted of each account is what it has; and counting anew.

Triggers count (revisions 0010, 0013, 0021 and 0023). What they should come to is said here once more.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, Select, Subquery, and_, case, func, null, or_, select, union_all, update

from app import events
from app.auth.models import users
from app.check.findings import Finding, Rows, confirmed, rows_of, walk
from app.database import Database, insert_on_conflict
from app.documents.lifecycle import Status
from app.documents.models import documents, previous_files
from app.events.catalogue.operators import UsageRecounted
from app.files.models import files
from app.processing.models import previous_result_files, previous_results, result_files, results
from app.quotas import usage

CODE = "usage-differs"
MOST = 20_000  # documents that are summed up in one statement, unless one account has more

_NAMES = ("bytes", "documents", "announced")
_ACCOUNTS = select(users.c.id, func.coalesce(usage.c.documents, 0).label("documents")).select_from(
    users.outerjoin(usage)
)


class Counts(NamedTuple):
    """What an account has."""

    bytes: int
    documents: int
    announced: int


async def differing(db: Database) -> AsyncIterator[Finding]:
    """Accounts of which something else is counted than they have."""
    async for _, rows in walk(db, _ACCOUNTS, [users.c.id]):
        for owners in _batches(rows):
            page = _compared(owners)
            found = _judge(await db.read(partial(rows_of, query=page)))
            for finding in await confirmed(db, page, _judge, found):
                yield finding


def recount(conn: Connection, owner_id: UUID) -> bool:
    """Count anew what an account has, and return whether something else was counted. For a unit alone with the account.

    The row is locked first. Whoever has changed a document, and holds that lock, has then committed, and is seen by the
    next statement; whoever has not got there yet is not seen, and adds to what is counted here.
    """
    conn.execute(
        insert_on_conflict(conn, usage)
        .values(user_id=owner_id, **dict.fromkeys(_NAMES, 0))
        .on_conflict_do_nothing(index_elements=["user_id"])
    )
    conn.execute(select(usage.c.user_id).where(usage.c.user_id == owner_id).with_for_update())
    (row,) = conn.execute(_compared([owner_id])).all()
    counted, there = _counts(row)
    if counted == there:
        return False
    conn.execute(update(usage).where(usage.c.user_id == owner_id).values(**there._asdict()))
    events.append(conn, UsageRecounted(before=counted._asdict(), after=there._asdict()), user_id=owner_id)
    return True


def _batches(rows: Rows) -> Iterator[list[UUID]]:
    """The accounts, in batches that have no more than MOST documents, or are one account."""
    batch, total = list[UUID](), 0
    for row in rows:
        if batch and total + row.documents > MOST:
            yield batch
            batch, total = [], 0
        batch.append(row.id)
        total += row.documents
    yield batch


def _judge(rows: Rows) -> list[Finding]:
    return [
        Finding(CODE, f"{_text(counted)} are counted, {_text(there)} are there", owner_id=row.id)
        for row in rows
        for counted, there in [_counts(row)]
        if counted != there
    ]


def _counts(row: Row[Any]) -> tuple[Counts, Counts]:
    """What is counted, and what is there."""
    return tuple(Counts(*(int(getattr(row, f"{of}_{name}")) for name in _NAMES)) for of in ("counted", "there"))  # type: ignore[return-value]


def _text(counts: Counts) -> str:
    return f"{counts.bytes} bytes, {counts.documents} documents, {counts.announced} announced"


def _compared(owners: Sequence[UUID]) -> Select[Any]:
    """What is counted of these accounts, and what they have: in one statement, so as of one moment."""
    of_documents, of_more = _of_documents(owners), _of_more(owners)
    there = {
        "bytes": func.coalesce(of_documents.c.bytes, 0) + func.coalesce(of_more.c.bytes, 0),
        "documents": func.coalesce(of_documents.c.documents, 0),
        "announced": func.coalesce(of_documents.c.announced, 0),
    }
    return (
        select(
            users.c.id,
            *(func.coalesce(usage.c[name], 0).label(f"counted_{name}") for name in _NAMES),
            *(value.label(f"there_{name}") for name, value in there.items()),
        )
        .select_from(
            users.outerjoin(usage)
            .outerjoin(of_documents, of_documents.c.owner_id == users.c.id)
            .outerjoin(of_more, of_more.c.owner_id == users.c.id)
        )
        .where(users.c.id.in_(owners))
        .order_by(users.c.id)
    )


def _of_documents(owners: Sequence[UUID]) -> Subquery:
    """Their documents: a rejected upload has no bytes, and nobody waits for it."""
    initiated, rejected = documents.c.status == Status.INITIATED, documents.c.error.is_not(null())
    return (
        select(
            documents.c.owner_id,
            func.sum(case((and_(initiated, rejected), 0), else_=documents.c.size)).label("bytes"),
            func.count().label("documents"),
            func.sum(case((or_(~initiated, rejected), 0), else_=1)).label("announced"),
        )
        .where(documents.c.owner_id.in_(owners))
        .group_by(documents.c.owner_id)
        .subquery("of_documents")
    )


def _of_more(owners: Sequence[UUID]) -> Subquery:
    """The files of their results, and the files that their documents had before, with the results of those."""
    sizes = union_all(
        *(
            select(documents.c.owner_id, files.c.size)
            .join(table, table.c.document_id == documents.c.id)
            .join(files, files.c.id == table.c.file_id)
            .where(documents.c.owner_id.in_(owners))
            for table in (results, previous_results)
        ),
        *(
            select(documents.c.owner_id, table.c.size)
            .join(table, table.c.document_id == documents.c.id)
            .where(documents.c.owner_id.in_(owners))
            for table in (result_files, previous_files, previous_result_files)
        ),
    ).subquery("sizes")
    summed = select(sizes.c.owner_id, func.sum(sizes.c.size).label("bytes")).group_by(sizes.c.owner_id)
    return summed.subquery("of_more")
