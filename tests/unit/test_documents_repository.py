"""The compare-and-swap itself: on SQLite transactions take turns, so no race from outside would show it missing."""

from uuid import uuid4

from sqlalchemy import create_engine, insert

from app.auth.models import users
from app.database import metadata, now
from app.documents import repository
from app.documents.lifecycle import Status
from app.documents.models import documents


def test_only_one_of_two_who_saw_the_same_status_moves_it() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as conn:
        metadata.create_all(conn)
        owner, document, first, second = (uuid4() for _ in range(4))
        conn.execute(insert(users).values(id=owner, email="a@b.c", password_hash="", active=True, created_at=now()))
        facts = {"filename": "a.pdf", "content_type": "application/pdf", "size": 1, "sha256": "0" * 64, "tags": []}
        times = {"created_at": now(), "updated_at": now()}
        row = {"id": document, "owner_id": owner, "status": Status.UPLOADED, "version": 1, **facts, **times}
        conn.execute(insert(documents).values(**row))
        seen = Status.UPLOADED
        assert repository.move(conn, document, seen, Status.PROCESSING, actor="a", job_id=first)
        assert repository.move(conn, document, seen, Status.PROCESSING, actor="b", job_id=second) is None
        found = repository.get(conn, owner, document)
        assert found is not None
        assert found.job_id == first
    engine.dispose()
