"""The compare-and-swaps themselves: SQLite takes turns, so no race from outside would show one missing."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, create_engine, insert, select

from app.auth.models import users
from app.database import metadata, now
from app.documents import repository, trash
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.documents.schemas import Document, Metadata
from app.errors import NotFound
from app.events.failure import Failure
from app.files.models import File, files, key_of
from app.telemetry import context

OWNER = uuid4()
ERROR = Failure(code="size-mismatch", detail="Size not as announced")
SHA256 = "0" * 64


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as conn:
        metadata.create_all(conn)
        conn.execute(insert(users).values(id=OWNER, email="a@b.c", password_hash="", active=True, created_at=now()))
        with context.acting("worker:w"):
            yield conn
    engine.dispose()


def add(conn: Connection, status: Status, expires_in: float = 0) -> Document:
    file_id = uuid4()
    verified = SHA256 if status is Status.UPLOADED else None
    file = File(file_id, key_of(file_id), "application/pdf", 1, verified)
    if status is Status.UPLOADED:
        return repository.add(conn, OWNER, "a.pdf", Metadata(), file)
    return repository.announce(conn, OWNER, "a.pdf", Metadata(), file, sha256=None, expires_in=expires_in)


def complete(conn: Connection, document: Document) -> Document | None:
    file = repository.file_of(conn, document.id)
    return repository.complete(conn, document, replace(file, sha256=SHA256))


def found(conn: Connection, document_id: UUID) -> Document:
    document = repository.get(conn, OWNER, document_id)
    assert document is not None
    return document


def test_only_one_of_two_who_saw_the_same_status_moves_it(conn: Connection) -> None:
    document, first, second = add(conn, Status.UPLOADED).id, uuid4(), uuid4()
    seen = Status.UPLOADED
    assert repository.move(conn, document, seen, Status.PROCESSING, job_id=first)
    assert repository.move(conn, document, seen, Status.PROCESSING, job_id=second) is None
    assert found(conn, document).job_id == first


def test_an_upload_is_completed_or_rejected_once(conn: Connection) -> None:
    """The file of a rejected upload may be removed at any time after, so it can never be completed."""
    rejected, completed = add(conn, Status.INITIATED), add(conn, Status.INITIATED)
    assert repository.reject(conn, rejected, ERROR)
    assert complete(conn, rejected) is None
    assert not repository.reject(conn, rejected, ERROR)
    assert (found(conn, rejected.id).status, found(conn, rejected.id).error) == (Status.INITIATED, ERROR)
    assert complete(conn, completed)
    assert not repository.reject(conn, completed, ERROR)
    assert complete(conn, completed) is None
    assert (found(conn, completed.id).status, found(conn, completed.id).error) == (Status.UPLOADED, None)


def test_only_uploads_that_are_late_and_not_complete_expire(conn: Connection) -> None:
    late, rejected, timely, completed = (add(conn, Status.INITIATED, seconds) for seconds in (-100, -100, -1, -100))
    assert repository.reject(conn, rejected, ERROR)
    assert complete(conn, completed)
    keys = {key_of(late.id), key_of(rejected.id)}
    assert set(trash.expire_uploads(conn, 50)) == keys
    found_files = dict(conn.execute(select(files.c.key, files.c.sha256).where(files.c.discarded_at.is_(None))).all())
    assert found_files == {key_of(timely.id): None, key_of(completed.id): SHA256}
    assert set(conn.scalars(select(documents.c.id))) == {timely.id, completed.id}
    assert repository.complete(conn, late, File(late.id, key_of(late.id), "application/pdf", 1, SHA256)) is None


def test_a_document_that_was_deleted_just_now_has_no_file(conn: Connection) -> None:
    """A reader sees each statement's own snapshot, so that it may find the document and not its file."""
    document = add(conn, Status.UPLOADED)
    assert trash.purge(conn, OWNER, document.id) == key_of(document.id)
    with pytest.raises(NotFound):
        repository.file_of(conn, document.id)
