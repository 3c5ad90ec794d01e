"""All SQL on the files that documents had before. Functions run inside the caller's transaction.

A file that a live job of its owner reads, as those that merge documents do, is not removed by upkeep: jobs hold the
keys of what they read.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    true,
    union_all,
    update,
)

from app import events
from app.database import Prepared, json_text, now
from app.documents.file_versions.schemas import DocumentFile
from app.documents.models import documents, previous_files
from app.documents.schemas import Document
from app.errors import NotFound
from app.events.catalogue.documents import DocumentFileRemoved
from app.files.models import File, files
from app.jobs.models import IS_LIVE, jobs

Reason = Literal["deleted", "expired", "too-many"]

BATCH = 100  # files deleted in one transaction, with their results

_STORED_AT = func.coalesce(documents.c.file_stored_at, documents.c.created_at)
# What is known of a document's current file, in the terms of previous ones.
_OF_CURRENT = {
    "number": documents.c.file_number,
    "filename": documents.c.filename,
    "content_type": documents.c.content_type,
    "size": documents.c.size,
    "sha256": documents.c.sha256,
    "label": documents.c.file_label,
    "keep": documents.c.file_keep,
    "stored_at": _STORED_AT,
    "stored_by": documents.c.file_stored_by,
}
_ITS_OWN = {"document_id": documents.c.id, "owner_id": documents.c.owner_id, "file_id": documents.c.file_id}
_PUT_ASIDE = Prepared(
    insert(previous_files).from_select(
        [*_ITS_OWN, *_OF_CURRENT, "replaced_at"],
        select(*_ITS_OWN.values(), *_OF_CURRENT.values(), now()).where(documents.c.id == bindparam("document")),
    )
)


def put_aside(conn: Connection, document_id: UUID) -> None:
    """Add the current file of a document, which is going to be replaced, to its previous ones."""
    _PUT_ASIDE.count(conn, {"document": document_id})


_CURRENT = select(
    *(column.label(name) for name, column in _OF_CURRENT.items()),
    null().label("replaced_at"),
    true().label("current"),
).where(documents.c.id == bindparam("document"))
_PREVIOUS = select(
    *(previous_files.c[name] for name in (*_OF_CURRENT, "replaced_at")), literal(value=False).label("current")
).where(previous_files.c.document_id == bindparam("document"))


def of_document(conn: Connection, document_id: UUID, below: int, limit: int) -> list[DocumentFile]:
    """Return up to `limit` files of a document whose numbers are `below`, the current one too, the newest first."""
    number = literal(below)
    found = list(conn.execute(_CURRENT.where(documents.c.file_number < number), {"document": document_id}))
    query = _PREVIOUS.where(previous_files.c.number < number).order_by(previous_files.c.number.desc()).limit(limit)
    found += conn.execute(query, {"document": document_id})
    return [DocumentFile.model_validate(row) for row in found[:limit]]


def one(conn: Connection, document_id: UUID, number: int) -> DocumentFile | None:
    """Return the file that has this number, current or previous, or None."""
    found = of_document(conn, document_id, number + 1, 1)
    return found[0] if found and found[0].number == number else None


_THERE = Prepared(
    select(previous_files.c.number).where(
        previous_files.c.document_id == bindparam("document"), previous_files.c.number == bindparam("nth")
    )
)


def previous_number(conn: Connection, document: Document, number: int | None) -> int | None:
    """Return the number if it is that of a previous file, and None for the current one. Raises NotFound."""
    if number in (None, document.file_number):
        return None
    if _THERE.one(conn, {"document": document.id, "nth": number}) is None:
        raise NotFound
    return number


_FILE = Prepared(
    select(*files.c, previous_files.c.filename)
    .join(previous_files, previous_files.c.file_id == files.c.id)
    .where(
        previous_files.c.document_id == bindparam("document"),
        previous_files.c.number == bindparam("nth"),
    )
)


def stored(conn: Connection, document_id: UUID, number: int | None) -> tuple[File, str]:
    """Return a previous file as it is stored, and its filename. Raises NotFound."""
    row = _FILE.one(conn, {"document": document_id, "nth": number})
    if row is None:
        raise NotFound
    return File.of(row), row["filename"]


def numbers(conn: Connection, documents_of: Mapping[str, UUID | None]) -> dict[str, int]:
    """Return the numbers of files by their keys, as far as they still are files of these documents."""
    ids, by_key = set(documents_of.values()), files.c.key.in_(documents_of)
    current = select(files.c.key, documents.c.file_number).join(documents, documents.c.file_id == files.c.id)
    before = select(files.c.key, previous_files.c.number).join(previous_files, previous_files.c.file_id == files.c.id)
    found = (
        current.where(documents.c.id.in_(ids), by_key),
        before.where(previous_files.c.document_id.in_(ids), by_key),
    )
    return {row.key: row.file_number for row in conn.execute(union_all(*found))}


def edit(conn: Connection, document_id: UUID, number: int, changes: Mapping[str, Any]) -> None:
    """Change what is stated about a previous file: its `label`, whether to `keep` it."""
    at = (previous_files.c.document_id == document_id, previous_files.c.number == number)
    conn.execute(update(previous_files).where(*at).values(**changes))


_ON_HOLD = exists().where(documents.c.id == previous_files.c.document_id, documents.c.hold.is_not(None))
# A job that was accepted later cannot read it. The args of the others name the keys of what they read.
_IS_READ = (
    exists()
    .where(
        jobs.c.owner_id == previous_files.c.owner_id,
        IS_LIVE,
        jobs.c.created_at <= previous_files.c.replaced_at,
        files.c.id == previous_files.c.file_id,
        json_text(jobs.c.args).contains(files.c.key),
    )
    .correlate(previous_files)
)
_REMOVABLE = (previous_files.c.keep.is_(False), ~_ON_HOLD, ~_IS_READ)


def beyond(conn: Connection, document_id: UUID, most: int) -> list[int]:
    """Return the numbers of a document's previous files that are too many: of all but the newest `most`, those that may
    be removed."""
    number, own = previous_files.c.number, previous_files.c.document_id == document_id
    counted = select(number).where(own, previous_files.c.keep.is_(False)).order_by(number.desc())
    oldest = conn.scalar(counted.offset(most).limit(1))
    if oldest is None:
        return []
    return list(conn.scalars(select(number).where(own, number <= oldest, *_REMOVABLE).order_by(number)))


def with_more(conn: Connection, most: int, after: UUID) -> list[Row[Any]]:
    """Return the first documents after this id, up to BATCH, that have more than `most` previous files that are not to
    be kept: their `document_id` and `owner_id`."""
    its_id, owner_id = previous_files.c.document_id, previous_files.c.owner_id
    counted = select(its_id, owner_id).where(its_id > after, previous_files.c.keep.is_(False))
    many = counted.group_by(its_id, owner_id).having(func.count() > most)
    return list(conn.execute(many.order_by(its_id, owner_id).limit(BATCH)))


def overdue(conn: Connection, ttl: float) -> list[Row[Any]]:
    """Lock up to BATCH previous files that were replaced at least `ttl` seconds ago, and that may be removed: their
    `owner_id`, `document_id` and `number`."""
    due = (previous_files.c.replaced_at <= now(-ttl), *_REMOVABLE)
    about = select(previous_files.c.owner_id, previous_files.c.document_id, previous_files.c.number).where(*due)
    oldest = about.order_by(previous_files.c.replaced_at).limit(BATCH)
    return list(conn.execute(oldest.with_for_update(of=previous_files, skip_locked=True)))


def remove(conn: Connection, owner_id: UUID, document_id: UUID, numbers: Collection[int], reason: Reason) -> list[int]:
    """Delete previous files of a document with their results, unless it is on hold. Returns their numbers.

    Triggers discard all that is stored of them.
    """
    at = (previous_files.c.document_id == document_id, previous_files.c.number.in_(numbers), ~_ON_HOLD)
    gone = sorted(conn.scalars(delete(previous_files).where(*at).returning(previous_files.c.number)))
    removed = [DocumentFileRemoved(number=number, reason=reason) for number in gone]
    events.append_all(conn, [(event, owner_id, document_id, None) for event in removed])
    return gone


def way_and_use(conn: Connection, document_id: UUID) -> tuple[bool, bool]:
    """Return whether a document came by a direct upload, and whether a job was accepted for it."""
    processed = exists().where(jobs.c.document_id == documents.c.id)
    about = select(documents.c.upload_expires_at.is_not(None), processed).where(documents.c.id == document_id)
    directly, used = conn.execute(about).one()
    return bool(directly), bool(used)
