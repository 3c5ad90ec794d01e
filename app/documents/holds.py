"""All SQL on holds: an operator forbids to remove a document, for a reason, until it is released.

Each statement that removes documents passes over those on hold; triggers (revision 0023) refuse one that does not.
"""

from uuid import UUID

from sqlalchemy import Connection, select, update

from app import events
from app.database import now
from app.documents.models import documents
from app.events.catalogue.documents import DocumentHeld, DocumentReleased


def hold(conn: Connection, document_id: UUID, reason: str) -> bool:
    """Put a document on hold, or change the reason. False: it is on hold for this reason already, or there is no such
    document."""
    return _change(conn, document_id, reason)


def release(conn: Connection, document_id: UUID) -> bool:
    """End the hold. False: there was none, or there is no such document."""
    return _change(conn, document_id, None)


def of_owner(conn: Connection, owner_id: UUID, limit: int) -> list[UUID]:
    """Return up to `limit` documents of the owner that are on hold."""
    held = (documents.c.owner_id == owner_id, documents.c.hold.is_not(None))
    return list(conn.scalars(select(documents.c.id).where(*held).limit(limit)))


def _change(conn: Connection, document_id: UUID, reason: str | None) -> bool:
    other = (documents.c.id == document_id, documents.c.hold.is_distinct_from(reason))
    values = {"hold": reason, "version": documents.c.version + 1, "updated_at": now()}
    changed = update(documents).where(*other).values(**values).returning(documents.c.owner_id, documents.c.version)
    row = conn.execute(changed).one_or_none()
    if row is None:
        return False
    event = DocumentHeld(version=row.version, reason=reason) if reason else DocumentReleased(version=row.version)
    events.append(conn, event, user_id=row.owner_id, document_id=document_id)
    return True
