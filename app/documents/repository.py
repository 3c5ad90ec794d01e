"""SQL over documents. Every function runs inside the caller's transaction; every read of a user's is owner-filtered."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, or_, select, tuple_, update

from app import events
from app.database import any_case, now
from app.documents.lifecycle import SOURCES, Status
from app.documents.models import document_tags, documents
from app.documents.schemas import Document, Failure, Filters, Metadata
from app.pagination import Keyset

_BY_ID = select(documents).where(documents.c.id == bindparam("id"), documents.c.owner_id == bindparam("owner"))


def get(conn: Connection, owner_id: UUID, document_id: UUID) -> Document | None:
    row = conn.execute(_BY_ID, {"id": document_id, "owner": owner_id}).one_or_none()
    return Document.model_validate(row) if row else None


def add(conn: Connection, values: dict[str, Any], metadata: Metadata) -> Document:
    """Insert a new document in the state that `values` name, with its `document.uploaded` event."""
    row = conn.execute(
        insert(documents)
        .values(**values, **metadata.model_dump(), version=1, created_at=now(), updated_at=now())
        .returning(documents)
    ).one()
    _index_tags(conn, row.id, row.tags)
    document = Document.model_validate(row)
    events.append(
        conn,
        "document.uploaded",
        actor=f"user:{document.owner_id}",
        user_id=document.owner_id,
        document_id=document.id,
        size=document.size,
        sha256=document.sha256,
        content_type=document.content_type,
    )
    return document


def move(
    conn: Connection,
    document_id: UUID,
    old: Status,
    new: Status,
    *,
    actor: str,
    job_id: UUID,
    error: Failure | None = None,
    request_id: str | None = None,
) -> Document | None:
    """Compare and swap the status, with its event: the only code that changes `documents.status`.

    None means that somebody else moved the document first, or that its latest job is another: nothing was changed.
    """
    assert old in SOURCES[new]
    swap = update(documents).where(documents.c.id == document_id, documents.c.status == old)
    if old is Status.PROCESSING:
        swap = swap.where(documents.c.job_id == job_id)
    row = conn.execute(
        swap.values(
            status=new,
            version=documents.c.version + 1,
            job_id=job_id,
            error=error.model_dump() if error else None,
            updated_at=now(),
        ).returning(documents)
    ).one_or_none()
    if row is None:
        return None
    events.append(
        conn,
        "document.status_changed",
        actor=actor,
        user_id=row.owner_id,
        document_id=row.id,
        job_id=job_id,
        request_id=request_id,
        old=old,
        new=new,
    )
    return Document.model_validate(row)


def edit(
    conn: Connection, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
) -> bool:
    """Change metadata if the document still has one of these versions (any, if None)."""
    at = [documents.c.id == document_id, documents.c.owner_id == owner_id]
    if versions is not None:
        at.append(documents.c.version.in_(versions))
    if not changes:
        return bool(conn.scalar(select(exists().where(*at))))
    values = {**changes, "version": documents.c.version + 1, "updated_at": now()}
    if conn.execute(update(documents).where(*at).values(**values)).rowcount == 0:
        return False
    if "tags" in changes:
        conn.execute(delete(document_tags).where(document_tags.c.document_id == document_id))
        _index_tags(conn, document_id, changes["tags"])
    actor = f"user:{owner_id}"
    events.append(
        conn, "document.edited", actor=actor, user_id=owner_id, document_id=document_id, fields=sorted(changes)
    )
    return True


def remove(conn: Connection, owner_id: UUID, document_id: UUID) -> bool:
    """Delete the row, and with it its jobs and result, unless a job is at work on it."""
    gone = conn.execute(
        delete(documents).where(
            documents.c.id == document_id,
            documents.c.owner_id == owner_id,
            documents.c.status != Status.PROCESSING,
        )
    ).rowcount
    if gone:
        events.append(conn, "document.deleted", actor=f"user:{owner_id}", user_id=owner_id, document_id=document_id)
    return bool(gone)


def page(conn: Connection, owner_id: UUID, filters: Filters, after: Keyset | None, limit: int) -> list[Document]:
    """Up to `limit` documents of the owner that follow `after` in the order that `filters` asks for."""
    column = documents.c[filters.sort_column]
    query = select(documents).where(documents.c.owner_id == owner_id, *_conditions(filters))
    if after is not None:
        position = tuple_(column, documents.c.id)
        end = tuple_(bindparam("value", after.value, column.type), bindparam("last", after.id, documents.c.id.type))
        query = query.where(position < end if filters.descending else position > end)
    order = [column.desc(), documents.c.id.desc()] if filters.descending else [column, documents.c.id]
    return [Document.model_validate(row) for row in conn.execute(query.order_by(*order).limit(limit))]


def without_document(conn: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that no document has."""
    return set(ids) - set(conn.scalars(select(documents.c.id).where(documents.c.id.in_(ids))))


def counts(conn: Connection) -> dict[str, int]:
    """Documents by status."""
    query = select(documents.c.status, func.count()).group_by(documents.c.status)
    return {**dict.fromkeys(map(str, Status), 0), **dict(conn.execute(query).tuples().all())}


def _index_tags(conn: Connection, document_id: UUID, tags: Sequence[str]) -> None:
    if tags:
        conn.execute(insert(document_tags), [{"document_id": document_id, "tag": tag} for tag in tags])


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        documents.c[name] == value
        for name in ("status", "content_type", "folder", "sha256")
        if (value := getattr(filters, name)) is not None
    ]
    if filters.tag is not None:
        tagged = select(document_tags.c.document_id).where(document_tags.c.tag == filters.tag)
        conditions.append(documents.c.id.in_(tagged))
    if filters.q is not None:
        conditions.append(
            or_(
                any_case(documents.c.filename).icontains(filters.q, autoescape=True),
                any_case(documents.c.description).icontains(filters.q, autoescape=True),
            )
        )
    if filters.created_after is not None:
        conditions.append(documents.c.created_at > filters.created_after)
    if filters.created_before is not None:
        conditions.append(documents.c.created_at < filters.created_before)
    return conditions
