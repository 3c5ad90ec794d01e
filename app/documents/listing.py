"""The list of a user's documents: any filter, in any order, a page at a time.

An index serves either a filter or an order. An index for each pair of the two would cost every upload more than it
saves, so one of the two has to be chosen for each query.

PostgreSQL chooses by its statistics. SQLite has none here, and would read a million documents in the order of their
names to find the three that failed, which takes 9 s. For SQLite the choice is therefore made here. If a filter matches
at most FEW documents, they are found by that filter and then sorted, in 60 ms at most. If it matches more, they are
read in order, and a page is soon full.

A filter without an index (`content_type`, `q`), or two common filters that rarely match together, may read all
documents of the owner.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select, tuple_

from app.database import case_insensitive, without_index
from app.documents.models import document_tags, documents
from app.documents.schemas import Document, Filters
from app.web.pagination import Keyset

FEW = 10_000  # documents

_EQUAL = ("status", "folder", "sha256")  # each has an index, after `owner_id` and before `created_at`

Conditions = list[ColumnElement[bool]]


def page(conn: Connection, owner_id: UUID, filters: Filters, after: Keyset | None, limit: int) -> list[Document]:
    """Return up to `limit` documents of the owner that follow `after` in the order that `filters` asks for."""
    rare = _rare(conn, owner_id, filters)
    searched = _searched(filters, rare)
    position = [_column(filters.sort_column, searched), documents.c.id]
    query = select(documents).where(*_conditions(owner_id, filters, searched))
    if after is not None:
        value = bindparam("value", after.value, documents.c[filters.sort_column].type)
        end = tuple_(value, bindparam("last", after.id, documents.c.id.type))
        query = query.where(tuple_(*position) < end if filters.descending else tuple_(*position) > end)
    order = [each.desc() for each in position] if filters.descending else position
    return [Document.model_validate(row) for row in conn.execute(query.order_by(*order).limit(limit))]


def _rare(conn: Connection, owner_id: UUID, filters: Filters) -> str | None:
    """Return a filter that matches at most FEW documents, or None if there is none or the database chooses itself."""
    if conn.dialect.name == "postgresql":
        return None
    return next((name for name, found in _indexed_filters(owner_id, filters) if _are_few(conn, found)), None)


def _are_few(conn: Connection, found: Select[tuple[UUID]]) -> bool:
    """Return whether a query finds at most FEW documents. Reads only a part of an index: 0.5 ms."""
    return (conn.scalar(select(func.count()).select_from(found.limit(FEW + 1).subquery())) or 0) <= FEW


def _indexed_filters(owner_id: UUID, filters: Filters) -> Iterator[tuple[str, Select[tuple[UUID]]]]:
    """Yield each filter that has an index, with the query for the ids of the documents that it matches."""
    own = select(documents.c.id).where(documents.c.owner_id == owner_id)
    for name in _EQUAL:
        if (value := getattr(filters, name)) is not None:
            yield name, own.where(documents.c[name] == value)
    if filters.tag is not None:
        yield "tag", _tagged(filters.tag)
    if between := _between(documents.c.created_at, filters):
        yield "created_at", own.where(*between)


def _searched(filters: Filters, rare: str | None) -> set[str]:
    """Return the columns to be looked up in an index. The others are compared with the rows that were found."""
    if rare == "tag":
        return set()  # the documents are found by their ids
    if filters.sort_column == "created_at":
        return {"owner_id", "created_at", *([rare] if rare else _EQUAL)}
    return {"owner_id", rare or filters.sort_column}


def _column(name: str, searched: set[str]) -> ColumnElement[Any]:
    return documents.c[name] if name in searched else without_index(documents.c[name])


def _conditions(owner_id: UUID, filters: Filters, searched: set[str]) -> Conditions:
    conditions: Conditions = [_column("owner_id", searched) == owner_id]
    for name in (*_EQUAL, "content_type"):
        if (value := getattr(filters, name)) is not None:
            conditions.append(_column(name, searched) == value)
    conditions += _between(_column("created_at", searched), filters)
    if filters.tag is not None:
        tagged = _tagged(filters.tag)
        conditions.append(
            tagged.where(document_tags.c.document_id == documents.c.id).exists()
            if searched
            else documents.c.id.in_(tagged)
        )
    if filters.q is not None:
        texts = (case_insensitive(documents.c.filename), case_insensitive(documents.c.description))
        conditions.append(or_(*(each.icontains(filters.q, autoescape=True) for each in texts)))
    return conditions


def _between(created_at: ColumnElement[datetime], filters: Filters) -> Conditions:
    conditions: Conditions = []
    if filters.created_after is not None:
        conditions.append(created_at > filters.created_after)
    if filters.created_before is not None:
        conditions.append(created_at < filters.created_before)
    return conditions


def _tagged(tag: str) -> Select[tuple[UUID]]:
    return select(document_tags.c.document_id).where(document_tags.c.tag == tag)
