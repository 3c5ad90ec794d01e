"""All SQL on documents. Functions run inside the caller's transaction; reads for a user are filtered by owner."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Float,
    bindparam,
    delete,
    exists,
    func,
    insert,
    null,
    select,
    update,
)

from app import events
from app.auth.models import users
from app.database import Prepared, UTCDateTime, now, time_of
from app.documents.lifecycle import SOURCES, Status
from app.documents.models import document_tags, documents
from app.documents.schemas import Document, Metadata, StatedMetadata
from app.errors import NotFound
from app.events.catalogue.base import Event
from app.events.catalogue.documents import (
    DocumentEdited,
    DocumentInitiated,
    DocumentStatusChanged,
    DocumentUploaded,
    DocumentUploadRejected,
)
from app.events.failure import Failure
from app.files import repository as files_repository
from app.files.models import File, files
from app.files.names import with_extension

TRASHED = "TRASHED"  # in the place of a status, where documents are counted
IS_LIVE = documents.c.deleted_at.is_(None)
"""The condition that a document is not in the trash."""

_OF_OWNER = select(documents).where(
    documents.c.id == bindparam("id"), documents.c.owner_id == bindparam("owner"), IS_LIVE
)
_BY_ID = Prepared(_OF_OWNER)
_BY_ID_LOCKED = Prepared(_OF_OWNER.with_for_update())


def get(conn: Connection, owner_id: UUID, document_id: UUID, *, locked: bool = False) -> Document | None:
    """Return the owner's document, or None; None also for one in the trash. `locked`: nobody else changes it until the
    transaction ends."""
    row = (_BY_ID_LOCKED if locked else _BY_ID).one(conn, {"id": document_id, "owner": owner_id})
    return Document.model_validate(row) if row else None


def of_any(conn: Connection, document_id: UUID, *, locked: bool = False) -> Document | None:
    """Return the document, whoever owns it and wherever it is, or None. For operators; `locked`, an event of it may
    follow."""
    query = select(documents).where(documents.c.id == document_id)
    row = conn.execute(query.with_for_update() if locked else query).one_or_none()
    return Document.model_validate(row) if row else None


_FILE_OF = Prepared(
    select(files).join(documents, documents.c.file_id == files.c.id).where(documents.c.id == bindparam("document"))
)


def file_of(conn: Connection, document_id: UUID) -> File:
    """Return the file that a document points to. Raises NotFound if the document was deleted just now."""
    row = _FILE_OF.one(conn, {"document": document_id})
    if row is None:
        raise NotFound
    return File.of(row)


def announced(conn: Connection, document_id: UUID) -> tuple[Document, File] | None:
    """Return any active owner's document and its file, or None. For a caller that has proved to have its upload URL."""
    of_active = select(documents).join(users, users.c.id == documents.c.owner_id).where(users.c.active)
    row = conn.execute(of_active.where(documents.c.id == document_id)).one_or_none()
    return (Document.model_validate(row), file_of(conn, document_id)) if row else None


_ADD_EACH = insert(documents).values(version=1, created_at=now(), updated_at=now())
_NEW = _ADD_EACH.values(expires_at=bindparam("expiry", type_=UTCDateTime)).returning(documents)
_ADD = Prepared(_NEW)
_ANNOUNCE = Prepared(_NEW.values(upload_expires_at=now(bindparam("expires_in", type_=Float))))


def add(conn: Connection, owner_id: UUID, filename: str, metadata: Metadata, file: File) -> Document:
    """Insert an UPLOADED document with its stored file, and append `document.uploaded`."""
    values = {"status": Status.UPLOADED, "sha256": file.sha256, "parent_id": None}
    document = _insert(conn, _ADD, owner_id, filename, metadata, file, **values)
    _record_upload(conn, document)
    return document


class Child(NamedTuple):
    """A document that was made of another one. Its file has a row."""

    filename: str
    metadata: StatedMetadata
    file: File


def add_children(
    conn: Connection, owner_id: UUID, parent_id: UUID | None, job_id: UUID, made: Sequence[Child]
) -> list[Document]:
    """Insert what a job has made of a document, as `add` does, in few round trips. Returns them in their order."""
    common = {"status": Status.UPLOADED, "parent_id": parent_id}
    rows = [
        _values(owner_id, each.filename, each.metadata, each.file) | common | {"sha256": each.file.sha256}
        for each in made
    ]
    conn.execute(_ADD_EACH, rows)
    if tags := [{"document_id": row["id"], "tag": tag} for row in rows for tag in row["tags"]]:
        conn.execute(insert(document_tags), tags)
    found = conn.execute(select(documents).where(documents.c.id.in_([row["id"] for row in rows])))
    by_id = {row.id: Document.model_validate(row) for row in found}
    added = [by_id[row["id"]] for row in rows]
    events.append_all(conn, ((_uploaded(each), owner_id, each.id, job_id) for each in added))
    return added


def announce(
    conn: Connection,
    owner_id: UUID,
    filename: str,
    metadata: Metadata,
    file: File,
    *,
    sha256: str | None,
    expires_in: float,
) -> Document:
    """Insert an INITIATED document whose file has `expires_in` seconds to arrive, and append `document.initiated`.

    `sha256` is what the client announced.
    """
    values = {"status": Status.INITIATED, "sha256": sha256, "expires_in": expires_in}
    document = _insert(conn, _ANNOUNCE, owner_id, filename, metadata, file, **values)
    event = DocumentInitiated(size=document.size, sha256=document.sha256, content_type=document.content_type)
    _record(conn, document, event)
    return document


def _insert(
    conn: Connection,
    statement: Prepared,
    owner_id: UUID,
    filename: str,
    metadata: Metadata,
    file: File,
    **values: Any,
) -> Document:
    files_repository.add(conn, file)
    expiry = time_of(conn) + timedelta(seconds=metadata.expires_in) if metadata.expires_in else None
    row = statement.one(conn, values | _values(owner_id, filename, metadata, file) | {"expiry": expiry})
    document = Document.model_validate(row)
    _index_tags(conn, document.id, document.tags)
    return document


def _values(owner_id: UUID, filename: str, metadata: StatedMetadata, file: File) -> dict[str, Any]:
    """What a new document has, whatever its status."""
    # The id of its first file, which was made when the bytes began to arrive.
    values: dict[str, Any] = {"id": file.id, "file_id": file.id, "owner_id": owner_id}
    values |= {"filename": with_extension(filename, file.content_type)}
    values |= {"content_type": file.content_type, "size": file.size}
    return values | {name: getattr(metadata, name) for name in StatedMetadata.model_fields}


_SWAP = (
    update(documents)
    .where(documents.c.id == bindparam("document"), documents.c.status == bindparam("old"))
    .values(status=bindparam("new"), version=documents.c.version + 1, updated_at=now())
    .returning(documents)
)
_SWAP_PLAIN = Prepared(_SWAP.where(IS_LIVE))
_SWAP_UNREJECTED = Prepared(_SWAP.where(IS_LIVE, documents.c.error.is_(null())))
# Wherever it is: a process of the release before, which knows no trash, may have begun the job.
_SWAP_LATEST_JOB = Prepared(_SWAP.where(documents.c.job_id == bindparam("job")))


def _swap_from(old: Status) -> Prepared:
    """Return the compare-and-swap out of a status, with the other conditions that it has."""
    if old is Status.INITIATED:
        return _SWAP_UNREJECTED
    if old is Status.PROCESSING:
        return _SWAP_LATEST_JOB
    return _SWAP_PLAIN


def move(
    conn: Connection,
    document_id: UUID,
    old: Status,
    new: Status,
    *,
    job_id: UUID | None = None,
    error: Failure | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Document | None:
    """Compare and swap the status, and append its event unless it stays the same. This is the only code that changes
    `documents.status`.

    `job_id` is the job that moves it. `facts` are columns that change with the status. Returns None, and changes
    nothing, if somebody else has moved the document first, if its latest job is another, or if its upload was rejected.
    """
    assert old in SOURCES[new]
    assert all(name in documents.c for name in facts), "unknown columns would be ignored"
    swap = {"document": document_id, "old": old, "new": new, "job": job_id}
    changed = {"job_id": job_id, "error": error.model_dump() if error else None, **facts}
    row = _swap_from(old).one(conn, swap | changed)
    if row is None:
        return None
    document = Document.model_validate(row)
    if new is not old:
        _record(conn, document, DocumentStatusChanged(old=old, new=new), job_id)
    return document


def complete(conn: Connection, document: Document, file: File) -> Document | None:
    """Make an announced document UPLOADED, now that its file is verified. Returns None as `move` does."""
    facts = {"size": file.size, "sha256": file.sha256, "content_type": file.content_type}
    moved = move(conn, document.id, Status.INITIATED, Status.UPLOADED, facts=facts)
    if moved:
        files_repository.verify(conn, file)
        _record_upload(conn, moved)
    return moved


def reject(conn: Connection, document: Document, error: Failure) -> bool:
    """Reject an upload for good unless it is complete or already rejected, and return whether it was.

    From then on its bytes may be removed. The file's row stays for as long as the document.
    """
    at = (documents.c.id == document.id, documents.c.status == Status.INITIATED, documents.c.error.is_(null()))
    values = {"error": error.model_dump(), "version": documents.c.version + 1, "updated_at": now()}
    rejected = conn.execute(update(documents).where(*at).values(**values)).rowcount == 1
    if rejected:
        _record(conn, document, DocumentUploadRejected(error=error))
    return rejected


def edit(
    conn: Connection, owner_id: UUID, document_id: UUID, versions: frozenset[int] | None, changes: dict[str, Any]
) -> bool:
    """Change metadata if the document still has one of these `versions` (any if None), and return whether it had."""
    at = [documents.c.id == document_id, documents.c.owner_id == owner_id, IS_LIVE]
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
    events.append(conn, DocumentEdited(fields=sorted(changes)), user_id=owner_id, document_id=document_id)
    return True


def edit_file(conn: Connection, document_id: UUID, changes: Mapping[str, Any]) -> None:
    """Change what is stated about a document's current file: its `file_label`, whether to keep it (`file_keep`)."""
    conn.execute(update(documents).where(documents.c.id == document_id).values(**changes))


def same(conn: Connection, owner_id: UUID, filename: str, folder: str | None, file: File) -> Document | None:
    """Return the first document that the owner has sent of this name, in this folder, with the bytes of this file; or
    None."""
    query = select(documents).where(
        documents.c.owner_id == owner_id,
        documents.c.sha256 == file.sha256,
        documents.c.filename == with_extension(filename, file.content_type),
        documents.c.folder == folder,
        documents.c.status != Status.INITIATED,
        documents.c.parent_id.is_(None),
        IS_LIVE,
    )
    row = conn.execute(query.order_by(documents.c.created_at, documents.c.id).limit(1)).one_or_none()
    return Document.model_validate(row) if row else None


def owns_any(conn: Connection, owner_id: UUID) -> bool:
    """Return whether the owner has a document, in whatever status, or in the trash."""
    return bool(conn.scalar(select(exists().where(documents.c.owner_id == owner_id))))


def counts(conn: Connection) -> dict[str, int]:
    """Return the number of documents in each status, and in the trash under TRASHED.

    All are counted in an index, and of the few in the trash what they would count as.
    """
    query = select(documents.c.status, func.count()).group_by(documents.c.status)
    trashed: Counter[str] = Counter(dict(conn.execute(query.where(~IS_LIVE)).all()))
    found: Counter[str] = Counter(dict(conn.execute(query).all()))
    return {**dict.fromkeys(map(str, Status), 0), **(found - trashed), TRASHED: trashed.total()}


def _record_upload(conn: Connection, document: Document) -> None:
    _record(conn, document, _uploaded(document))


def _uploaded(document: Document) -> Event:
    assert document.sha256 is not None, "its bytes are verified"
    return DocumentUploaded(size=document.size, sha256=document.sha256, content_type=document.content_type)


def _record(conn: Connection, document: Document, event: Event, job_id: UUID | None = None) -> None:
    events.append(conn, event, user_id=document.owner_id, document_id=document.id, job_id=job_id)


def _index_tags(conn: Connection, document_id: UUID, tags: Sequence[str]) -> None:
    if tags:
        conn.execute(insert(document_tags), [{"document_id": document_id, "tag": tag} for tag in tags])
