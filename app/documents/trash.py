"""All SQL on documents that leave: into the trash and out of it, and for good. Functions run inside the caller's
transaction.

A document that is PROCESSING, or on hold, stays where it is.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    String,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from app import events, idempotency
from app.database import delete_batch, in_batch, now, usual
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.documents.schemas import Document
from app.events.catalogue.documents import DocumentDeleted, DocumentPurged, DocumentRestored, DocumentUploadExpired
from app.files import repository as files

BATCH = 500  # documents in one statement
PURGE_BATCH = 100  # the same, with their results, each of which may have megabytes

_LIVE = documents.c.deleted_at.is_(None)
_TRASHED = documents.c.deleted_at.is_not(None)
_FREE = and_(documents.c.hold.is_(None), documents.c.status != Status.PROCESSING)
_STORED = documents.c.status != Status.INITIATED  # of one that is not, there is nothing to bring back
_PUT = update(documents).values(deleted_at=now(), updated_at=now(), version=documents.c.version + 1)


def put(conn: Connection, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None = None) -> bool:
    """Move a document to the trash if it has one of these `versions` (any if None), and return whether it was."""
    of_owner = _of_owner(owner_id, document_id, versions)
    row = conn.execute(_PUT.where(*of_owner, _LIVE, _FREE, _STORED).returning(documents.c.version)).one_or_none()
    if row is None:
        return False
    idempotency.forget_documents(conn, [document_id])
    events.append(conn, DocumentDeleted(version=row.version), user_id=owner_id, document_id=document_id)
    return True


def count(conn: Connection, owner_id: UUID) -> tuple[int, int]:
    """Return how many documents of the owner have a stored file, and how many are in the trash."""
    of_owner = select(func.count()).select_from(documents).where(documents.c.owner_id == owner_id)
    return conn.scalar(of_owner.where(_STORED)) or 0, conn.scalar(of_owner.where(_TRASHED)) or 0


class Expiry(NamedTuple):
    """A way in which documents leave: `moment` was at least `kept` seconds ago, and they are `such`."""

    moment: Column[datetime]
    kept: float
    such: ColumnElement[bool]

    def due(self, late: float = 0) -> ColumnElement[bool]:
        """The condition for documents that are to leave, and have been for `late` seconds."""
        return and_(self.moment <= now(-self.kept - late), self.such)


def expiries(retention: float) -> list[Expiry]:
    """Return the ways in which documents expire, where they are kept for `retention` seconds (0: for ever).

    A document with an `expires_at` of its own expires then, and not by its age. If that is more than `retention`
    seconds from now, it was set while documents were kept for longer, and the age counts after all.
    """
    own, free = documents.c.expires_at, and_(_LIVE, _FREE, _STORED)
    found = [Expiry(own, 0, free)]
    if retention:
        found.append(Expiry(documents.c.created_at, retention, and_(free, or_(own.is_(None), own > now(retention)))))
    return found


def purging(kept: float) -> Expiry:
    """Return the way in which documents leave the trash, where they stay for `kept` seconds."""
    return Expiry(documents.c.deleted_at, kept, and_(_TRASHED, _FREE))


def put_expired(conn: Connection, expiry: Expiry, since: datetime | None = None) -> list[datetime]:
    """Move documents to the trash that have expired in this way, the first BATCH of those since `since`. Returns their
    moments; none: no more are left."""
    moment = expiry.moment
    due = [expiry.due()] + ([moment >= since] if since else [])
    batch = in_batch(conn, documents, *due, oldest=moment, limit=BATCH)
    about = (documents.c.id, documents.c.owner_id, documents.c.version, moment.label("moment"))
    rows = conn.execute(_PUT.where(batch).returning(*about)).all()
    idempotency.forget_documents(conn, [row.id for row in rows])
    gone = ((DocumentDeleted(version=row.version, reason="expired"), row.owner_id, row.id, None) for row in rows)
    events.append_all(conn, gone)
    return [row.moment for row in rows]


def restore(conn: Connection, owner_id: UUID, document_id: UUID, retention: float) -> Document | None:
    """Take a document out of the trash, and return it; None if it is not there.

    One that would expire at once is kept for `retention` seconds again, and forever if that is 0.
    """
    expiry, again = documents.c.expires_at, now(retention) if retention else null()
    whens = [(expiry <= now(), again)]
    if retention:
        whens.append((and_(expiry.is_(None), documents.c.created_at <= now(-retention)), again))
    values = {"deleted_at": None, "expires_at": case(*whens, else_=expiry), "version": documents.c.version + 1}
    restoring = update(documents).where(*_of_owner(owner_id, document_id), _TRASHED).values(**values, updated_at=now())
    row = conn.execute(restoring.returning(documents)).one_or_none()
    if row is None:
        return None
    events.append(conn, DocumentRestored(version=row.version), user_id=owner_id, document_id=document_id)
    return Document.model_validate(row)


def was_purged(conn: Connection, owner_id: UUID, document_id: UUID) -> bool:
    """Return whether the owner had this document, and it is gone for good: as long as its events are kept."""
    table = events.events
    purged = (table.c.document_id == document_id, table.c.user_id == owner_id, table.c.event == DocumentPurged.name)
    return bool(conn.scalar(select(exists().where(*purged))))


def purge(conn: Connection, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None = None) -> str | None:
    """Delete a document for good, with its jobs, results and previous files, and discard all that is stored of them.

    Only if it has one of these `versions` (any if None). Returns its file's key, or None if nothing was deleted.
    """
    keys = _purged(conn, _delete(conn, owner_id, document_id, versions))
    return keys[0] if keys else None


def forget(conn: Connection, owner_id: UUID, document_id: UUID) -> bool:
    """Do the same to a document whose file is another one's now, which keeps it. Returns whether it was deleted."""
    rows = _delete(conn, owner_id, document_id)
    _record(conn, rows)
    return bool(rows)


def purge_overdue(
    conn: Connection, kept: float, owner_id: UUID | None = None, since: datetime | None = None
) -> tuple[list[str], datetime | None]:
    """Delete documents for good that were moved to the trash at least `kept` seconds ago: the first PURGE_BATCH of
    those since `since`, of one owner or of all.

    Returns the keys of their files, and when the last of them was moved; None: no more are left.
    """
    moment = documents.c.deleted_at
    due = [purging(kept).due()] + ([moment >= since] if since else [])
    due += [documents.c.owner_id == owner_id] if owner_id else []
    about = (documents.c.id, documents.c.owner_id, documents.c.file_id, documents.c.version, moment)
    rows = delete_batch(conn, documents, *due, oldest=moment, returning=about, limit=PURGE_BATCH)
    return _purged(conn, rows), max((row.deleted_at for row in rows), default=None)


def purge_of_owner(conn: Connection, owner_id: UUID) -> list[str]:
    """Delete all documents of an owner for good, up to PURGE_BATCH. Returns the keys of their files; none: no more are
    left."""
    theirs = (documents.c.owner_id == owner_id, _FREE)
    about = (documents.c.id, documents.c.file_id, documents.c.deleted_at)
    rows = delete_batch(conn, documents, *theirs, oldest=documents.c.created_at, returning=about, limit=PURGE_BATCH)
    events.append_each(conn, DocumentDeleted(), [(owner_id, row.id) for row in rows if row.deleted_at is None])
    events.append_each(conn, DocumentPurged(), [(owner_id, row.id) for row in rows])
    return files.discard(conn, [row.file_id for row in rows])


def expire_uploads(conn: Connection, grace: float) -> list[str]:
    """Delete documents whose upload was not completed within `grace` seconds after its URL expired, up to BATCH of
    them, and discard their files. Returns the files' keys; none: no more documents are left."""
    # Not a parameter: of those it is not known that the index of such documents has them.
    initiated = documents.c.status == literal(Status.INITIATED, String, literal_execute=True)
    late = (usual(initiated), documents.c.upload_expires_at <= now(-grace), documents.c.hold.is_(None))
    about = (documents.c.id, documents.c.owner_id, documents.c.file_id)
    rows = delete_batch(conn, documents, *late, oldest=documents.c.upload_expires_at, returning=about, limit=BATCH)
    events.append_each(conn, DocumentUploadExpired(), ((row.owner_id, row.id) for row in rows))
    return files.discard(conn, [row.file_id for row in rows])


def _of_owner(
    owner_id: UUID, document_id: UUID, versions: frozenset[int] | None = None
) -> tuple[ColumnElement[bool], ...]:
    at = (documents.c.id == document_id, documents.c.owner_id == owner_id)
    return at if versions is None else (*at, documents.c.version.in_(versions))


def _delete(
    conn: Connection, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None = None
) -> Sequence[Any]:
    about = (documents.c.id, documents.c.owner_id, documents.c.file_id, documents.c.version, documents.c.deleted_at)
    of_owner = _of_owner(owner_id, document_id, versions)
    return conn.execute(delete(documents).where(*of_owner, _FREE).returning(*about)).all()


def _purged(conn: Connection, rows: Sequence[Any]) -> list[str]:
    """Record that documents were deleted, and discard their files. Returns the files' keys."""
    _record(conn, rows)
    return files.discard(conn, [row.file_id for row in rows])


def _record(conn: Connection, rows: Sequence[Any]) -> None:
    last = {row.id: row.version + 1 for row in rows}
    seen = [row for row in rows if row.deleted_at is None]
    events.append_all(conn, [(DocumentDeleted(version=last[row.id]), row.owner_id, row.id, None) for row in seen])
    events.append_all(conn, [(DocumentPurged(version=last[row.id]), row.owner_id, row.id, None) for row in rows])
