"""The compare-and-swaps themselves: SQLite takes turns, so no race from outside would show one missing."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, create_engine, insert, select

from app.auth.models import users
from app.database import metadata, now
from app.documents import repository
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.documents.schemas import Document
from app.events.catalogue import Failure
from app.telemetry import context

OWNER = uuid4()
ERROR = Failure(code="size-mismatch", detail="Size not as announced")
FACTS = {"size": 1, "sha256": "0" * 64, "content_type": "application/pdf"}


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
    document_id = uuid4()
    row = {"id": document_id, "owner_id": OWNER, "status": status, "version": 1, "filename": "a.pdf", "tags": []}
    times = {"created_at": now(), "updated_at": now(), "upload_expires_at": now(expires_in)}
    conn.execute(insert(documents).values(**row, **FACTS, **times))
    return found(conn, document_id)


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
    assert repository.complete(conn, rejected, FACTS) is None
    assert not repository.reject(conn, rejected, ERROR)
    assert (found(conn, rejected.id).status, found(conn, rejected.id).error) == (Status.INITIATED, ERROR)
    assert repository.complete(conn, completed, FACTS)
    assert not repository.reject(conn, completed, ERROR)
    assert repository.complete(conn, completed, FACTS) is None
    assert (found(conn, completed.id).status, found(conn, completed.id).error) == (Status.UPLOADED, None)


def test_only_uploads_that_are_late_and_not_complete_expire(conn: Connection) -> None:
    late, rejected, timely, completed = (add(conn, Status.INITIATED, seconds) for seconds in (-100, -100, -1, -100))
    assert repository.reject(conn, rejected, ERROR)
    assert repository.complete(conn, completed, FACTS)
    assert set(repository.expire(conn, 50)) == {late.id, rejected.id}
    assert set(conn.scalars(select(documents.c.id))) == {timely.id, completed.id}
    assert repository.complete(conn, late, FACTS) is None
