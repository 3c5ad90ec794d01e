"""SQL over documents. Every function runs inside the caller's transaction; every read of a user's is owner-filtered."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Connection,
    Float,
    String,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    update,
)

from app import events
from app.database import Prepared, delete_batch, now, usual
from app.documents.lifecycle import SOURCES, Status
from app.documents.models import document_tags, documents
from app.documents.schemas import Document, Failure, Metadata

EXPIRED = 500  # documents deleted in one transaction

_BY_ID = Prepared(
    select(documents).where(documents.c.id == bindparam("id"), documents.c.owner_id == bindparam("owner"))
)


def get(conn: Connection, owner_id: UUID, document_id: UUID) -> Document | None:
    row = _BY_ID.one(conn, {"id": document_id, "owner": owner_id})
    return Document.model_validate(row) if row else None


def announced(conn: Connection, document_id: UUID) -> Document | None:
    """A document whose upload URL the caller has, whoever owns it."""
    row = conn.execute(select(documents).where(documents.c.id == document_id)).one_or_none()
    return Document.model_validate(row) if row else None


_NEW = insert(documents).values(version=1, created_at=now(), updated_at=now()).returning(documents)
_ADD = Prepared(_NEW)
_ANNOUNCE = Prepared(_NEW.values(upload_expires_at=now(bindparam("expires_in", type_=Float))))


def add(conn: Connection, values: dict[str, Any], metadata: Metadata, expires_in: float | None = None) -> Document:
    """Insert a new document, UPLOADED or INITIATED as `values` say, with its event of that name.

    `expires_in` is the time in seconds that its upload has, if it is INITIATED.
    """
    statement = _ADD if expires_in is None else _ANNOUNCE
    row = statement.one(conn, {**values, **metadata.model_dump(), "expires_in": expires_in})
    document = Document.model_validate(row)
    _index_tags(conn, document.id, document.tags)
    _tell_of_file(conn, f"document.{document.status.lower()}", document)
    return document


_SWAP = (
    update(documents)
    .where(documents.c.id == bindparam("document"), documents.c.status == bindparam("old"))
    .values(status=bindparam("new"), version=documents.c.version + 1, updated_at=now())
    .returning(documents)
)
_SWAPS = dict.fromkeys(Status, Prepared(_SWAP)) | {
    Status.INITIATED: Prepared(_SWAP.where(documents.c.error.is_(null()))),
    Status.PROCESSING: Prepared(_SWAP.where(documents.c.job_id == bindparam("job"))),
}


def move(
    conn: Connection,
    document_id: UUID,
    old: Status,
    new: Status,
    *,
    actor: str,
    job_id: UUID | None = None,
    error: Failure | None = None,
    request_id: str | None = None,
    **facts: Any,
) -> Document | None:
    """Compare and swap the status, with its event: the only code that changes `documents.status`.

    `facts` are other columns that change with it. None means that somebody else moved the document first, that its
    latest job is another, or that its upload was rejected: nothing was changed.
    """
    assert old in SOURCES[new]
    assert all(name in documents.c for name in facts), "others would be left out in silence"
    swap = {"document": document_id, "old": old, "new": new, "job": job_id}
    changed = {"job_id": job_id, "error": error.model_dump() if error else None, **facts}
    row = _SWAPS[old].one(conn, swap | changed)
    if row is None:
        return None
    document = Document.model_validate(row)
    events.append(
        conn,
        "document.status_changed",
        actor=actor,
        user_id=document.owner_id,
        document_id=document.id,
        job_id=job_id,
        request_id=request_id,
        old=old,
        new=new,
    )
    return document


def complete(conn: Connection, document: Document, facts: dict[str, Any]) -> Document | None:
    """Make an announced document UPLOADED, its file being as `facts` say. None: as with `move`."""
    actor = f"user:{document.owner_id}"
    moved = move(conn, document.id, Status.INITIATED, Status.UPLOADED, actor=actor, **facts)
    if moved:
        _tell_of_file(conn, "document.uploaded", moved)
    return moved


def reject(conn: Connection, document: Document, error: Failure) -> bool:
    """Close an upload for good, unless it is complete: from now on its file is nobody's, and may be removed."""
    at = (documents.c.id == document.id, documents.c.status == Status.INITIATED, documents.c.error.is_(null()))
    values = {"error": error.model_dump(), "version": documents.c.version + 1, "updated_at": now()}
    rejected = conn.execute(update(documents).where(*at).values(**values)).rowcount == 1
    if rejected:
        actor, owner, told = f"user:{document.owner_id}", document.owner_id, error.model_dump()
        events.append(conn, "document.upload_rejected", actor=actor, user_id=owner, document_id=document.id, error=told)
    return rejected


def expire(conn: Connection, grace: float, actor: str) -> list[UUID]:
    """Delete documents whose upload was not completed within `grace` seconds after its URL expired, up to EXPIRED of
    them, and return their ids. None: no more are left."""
    # Not a parameter: of those it is not known that the index of such documents has them.
    initiated = documents.c.status == literal(Status.INITIATED, String, literal_execute=True)
    late = (usual(initiated), documents.c.upload_expires_at <= now(-grace))
    about = (documents.c.id, documents.c.owner_id)
    rows = delete_batch(conn, documents, *late, oldest=documents.c.upload_expires_at, returning=about, limit=EXPIRED)
    events.append_each(conn, "document.upload_expired", actor=actor, documents=((row.owner_id, row.id) for row in rows))
    return [row.id for row in rows]


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


def without_document(conn: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that no document has."""
    return set(ids) - set(conn.scalars(select(documents.c.id).where(documents.c.id.in_(ids))))


def deleted(conn: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that a document of this database had, until it was deleted."""
    return events.document_ids(conn, ("document.deleted", "document.upload_expired"), ids)


def counts(conn: Connection) -> dict[str, int]:
    """Documents by status."""
    query = select(documents.c.status, func.count()).group_by(documents.c.status)
    return {**dict.fromkeys(map(str, Status), 0), **dict(conn.execute(query).all())}


def _tell_of_file(conn: Connection, event: str, document: Document) -> None:
    events.append(
        conn,
        event,
        actor=f"user:{document.owner_id}",
        user_id=document.owner_id,
        document_id=document.id,
        size=document.size,
        sha256=document.sha256,
        content_type=document.content_type,
    )


def _index_tags(conn: Connection, document_id: UUID, tags: Sequence[str]) -> None:
    if tags:
        conn.execute(insert(document_tags), [{"document_id": document_id, "tag": tag} for tag in tags])
