"""The list of a user's documents, or of all: any filter, in any order, a page at a time.

An index serves either a filter or an order. An index for each pair of the two would cost every upload more than it
saves, so one of the two has to be chosen for each query. PostgreSQL knows how common a value is. SQLite's ANALYZE knows
only the average of a column, by which it searches for a common value and sorts all that has it, or reads 400,000
documents in the order of their names to find none: 50 to 1,000 ms. So SQLite is told here. If a filter matches at most
FEW documents, they are found by that filter and then sorted, in 60 ms at most. If it matches more, they are read in
order, and a page is soon full.

A filter without an index (`content_type`, a `q` of one or two characters), or two common filters that rarely match
together, may read all documents of the owner.

What is in the trash, or on hold, is found by that, and then filtered and sorted.

The list of all documents is in the order of time only. A status finds them, if it is rare, and so do a tag and `q`; by
anything else they are read in order.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from operator import eq, gt, lt
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select, tuple_

from app.database import Database, case_insensitive, without_index
from app.documents import search
from app.documents.lifecycle import Status
from app.documents.models import document_tags, documents
from app.documents.repository import IS_LIVE
from app.documents.schemas import Document, DocumentPage, Filters
from app.web import pagination
from app.web.pagination import Keyset

MANY = 1000  # documents in one status, above which they are not counted
FEW = 10_000  # documents; to find out whether there are more takes 0.5 ms

_EQUAL = ("status", "folder", "sha256", "parent_id")  # each has an index, after `owner_id` and before `created_at`

_Comparison = tuple[str, Callable[[Any, Any], ColumnElement[bool]], Any]  # a column's name, an operator, and a value


def is_search(owner_id: UUID | None, filters: Filters) -> bool:
    """Return whether a page may take long: no index has all that it is looked for and sorted by."""
    if filters.q or filters.content_type or filters.tag or filters.trashed or filters.held:
        return True
    indexed = [*(getattr(filters, name) for name in _EQUAL), filters.created_after or filters.created_before]
    given = len(indexed) - indexed.count(None)
    if owner_id is None and any(getattr(filters, name) for name in _EQUAL):
        return True
    return given > 1 or (given == 1 and filters.sort_column != "created_at")


async def find(
    db: Database, owner_id: UUID | None, filters: Filters, limit: int, cursor: str | None, *, counted: bool
) -> DocumentPage:
    """Return a page of the owner's documents, or of all, that match the filters, and how many do if they are to be
    `counted`.

    Raises InvalidCursor, SearchTooBroad, TooBusy.
    """
    after = pagination.decode(cursor, filters.sort, _SORT_TYPES[filters.sort_column]) if cursor else None

    def work(conn: Connection) -> tuple[list[Document], int | None]:
        rows = page(conn, owner_id, filters, after, limit + 1)
        return rows, count(conn, owner_id, filters) if counted else None

    rows, total = await (db.search if counted or is_search(owner_id, filters) else db.read)(work)
    items, last = pagination.page(rows, limit)
    end = pagination.encode(filters.sort, getattr(last, filters.sort_column), last.id) if last else None
    return DocumentPage(items=items, next_cursor=end, total=total)


def page(conn: Connection, owner_id: UUID | None, filters: Filters, after: Keyset | None, limit: int) -> list[Document]:
    """Return up to `limit` documents of the owner, or of all, that follow `after` in the order that `filters` asks
    for."""
    query, position = _matching(conn, owner_id, filters)
    if after is not None:
        value = bindparam("value", after.value, documents.c[filters.sort_column].type)
        end = tuple_(value, bindparam("last", after.id, documents.c.id.type))
        query = query.where(tuple_(*position) < end if filters.descending else tuple_(*position) > end)
    order = [each.desc() for each in position] if filters.descending else position
    return [Document.model_validate(row) for row in conn.execute(query.order_by(*order).limit(limit))]


def count(conn: Connection, owner_id: UUID | None, filters: Filters) -> int:
    """Return how many documents of the owner, or of all, match. Reads all of them, if only in an index."""
    query, _ = _matching(conn, owner_id, filters)
    return conn.scalar(query.with_only_columns(func.count(), maintain_column_froms=True)) or 0


async def counted(db: Database, owner_id: UUID, filters: Filters, most: int) -> int:
    """Return how many documents of the owner match, up to a number. Raises SearchTooBroad, TooBusy."""
    run = db.search if is_search(owner_id, filters) else db.read
    return await run(partial(count_up_to, owner_id=owner_id, filters=filters, most=most))


def count_up_to(conn: Connection, owner_id: UUID, filters: Filters, most: int) -> int:
    """Return how many documents of the owner match, up to a number."""
    query, _ = _matching(conn, owner_id, filters)
    return _up_to(conn, query.with_only_columns(documents.c.id, maintain_column_froms=True), most)


def some(conn: Connection, owner_id: UUID, document_ids: Collection[UUID]) -> dict[UUID, Document]:
    """Return those of the owner's documents that are not in the trash, by id."""
    own = (without_index(documents.c.owner_id) == owner_id, documents.c.id.in_(document_ids), IS_LIVE)
    return {row.id: Document.model_validate(row) for row in conn.execute(select(documents).where(*own))}


def by_status(conn: Connection, owner_id: UUID) -> dict[Status, int]:
    """Return how many documents of the owner are in each status, those in the trash left out; up to MANY + 1."""
    return {status: _up_to(conn, _in_status(owner_id, status).where(IS_LIVE), MANY + 1) for status in Status}


def _in_status(owner_id: UUID, status: Status) -> Select[tuple[UUID]]:
    return select(documents.c.id).where(documents.c.owner_id == owner_id, documents.c.status == status)


def _matching(
    conn: Connection, owner_id: UUID | None, filters: Filters
) -> tuple[Select[Any], list[ColumnElement[Any]]]:
    """Return the query for the documents that match, and the columns that tell a document's position among them."""
    comparisons = _comparisons(owner_id, filters)
    matching = search.candidates(conn, owner_id, filters.q) if filters.q else None
    rare = _rare(conn, filters, comparisons, matching)
    searched = _searched_of_all(rare) if owner_id is None else _searched(filters.sort_column, rare)
    if filters.trashed or filters.held:
        searched = {"owner_id"}  # and that, which has an index of its own

    def column(name: str) -> ColumnElement[Any]:
        return documents.c[name] if name in searched else without_index(documents.c[name])

    query = select(documents).where(~IS_LIVE if filters.trashed else IS_LIVE)
    if filters.held:
        query = query.where(documents.c.hold.is_not(None))
    query = query.where(*(compare(column(name), value) for name, compare, value in comparisons))
    if filters.tag is not None:
        of_document = _tagged(filters.tag).where(document_tags.c.document_id == documents.c.id)
        query = query.where(documents.c.id.in_(_tagged(filters.tag)) if rare == "tag" else of_document.exists())
    if matching is not None and rare == "q":
        query = query.where(documents.c.id.in_(matching))
    if filters.q is not None:
        texts = (case_insensitive(documents.c.filename), case_insensitive(documents.c.description))
        query = query.where(or_(*(text.icontains(filters.q, autoescape=True) for text in texts)))
    return query, [column(filters.sort_column), documents.c.id]


def _comparisons(owner_id: UUID | None, filters: Filters) -> list[_Comparison]:
    given: list[_Comparison] = [("owner_id", eq, owner_id)]
    given += [(name, eq, getattr(filters, name)) for name in (*_EQUAL, "content_type")]
    given += [("created_at", gt, filters.created_after), ("created_at", lt, filters.created_before)]
    return [comparison for comparison in given if comparison[2] is not None]


def _rare(
    conn: Connection, filters: Filters, comparisons: list[_Comparison], matching: search.Candidates | None
) -> str | None:
    """Return a filter that matches at most FEW documents, or None if there is none or the database chooses itself."""
    found: dict[str, Select[tuple[UUID]] | search.Candidates] = {}
    # PostgreSQL chooses among its indexes; of candidates that it would have to sort it does not know how few they are.
    of_all = not any(each == "owner_id" for each, _, _ in comparisons)
    indexed = ("status",) if of_all else (*_EQUAL, "created_at")
    for name in indexed if conn.dialect.name == "sqlite" else ():
        given = [comparison for comparison in comparisons if comparison[0] in ("owner_id", name)]
        if any(each == name for each, _, _ in given):
            own = (compare(documents.c[each], value) for each, compare, value in given)
            found[name] = select(documents.c.id).where(*own)
    if filters.tag is not None and conn.dialect.name == "sqlite":
        found["tag"] = _tagged(filters.tag)
    if matching is not None:
        found["q"] = matching
    return next((name for name, query in found.items() if _are_few(conn, query)), None)


def _are_few(conn: Connection, found: Select[tuple[UUID]] | search.Candidates) -> bool:
    """Return whether a query finds at most FEW documents. Reads only a part of an index."""
    return _up_to(conn, found, FEW + 1) <= FEW


def _up_to(conn: Connection, found: Select[tuple[UUID]] | search.Candidates, most: int) -> int:
    """Return how many a query finds, up to a number."""
    return conn.scalar(select(func.count()).select_from(found.limit(most).subquery())) or 0


def _searched(sort_column: str, rare: str | None) -> set[str]:
    """Return the columns to be looked up in an index. The others are compared with the rows that were found."""
    if rare in ("tag", "q"):
        return set()  # the documents are found by their ids
    if sort_column == "created_at":
        return {"owner_id", "created_at", *([rare] if rare else _EQUAL)}
    return {"owner_id", rare or sort_column}


def _searched_of_all(rare: str | None) -> set[str]:
    """The same for the list of all documents."""
    if rare in ("tag", "q"):
        return set()
    return {rare or "created_at"}


_SORT_TYPES: dict[str, type[int | str | datetime]] = {"created_at": datetime, "filename": str, "size": int}


def _tagged(tag: str) -> Select[tuple[UUID]]:
    return select(document_tags.c.document_id).where(document_tags.c.tag == tag)
