"""Accounts with very many files that documents had before: to be rid of them takes no longer than it may."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, select, text, update
from uuid_utils.compat import uuid7

from app.database import now
from app.documents.models import documents, previous_files
from app.files.models import files, key_of
from tests.api.test_versions import used
from tests.support import databases
from tests.support.factories import PDF_TYPE
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import User

MANY = 20_000
AT_ONCE = 1000  # rows


def with_many(server: Server, user: User) -> dict[str, Any]:
    """A document of theirs that had so many files before, each to be kept."""
    document = user.upload()
    about = {"content_type": PDF_TYPE, "size": 10, "sha256": "a" * 64}
    of_document = {"document_id": UUID(document["id"]), "owner_id": UUID(document["owner_id"]), "filename": "a.pdf"}
    with databases.engine(server.data_dir).begin() as conn:
        uncounted(conn)
        for start in range(0, MANY, AT_ONCE):
            ids = [uuid7() for _ in range(AT_ONCE)]
            stored = insert(files).values(created_at=now(), **about)
            conn.execute(stored, [{"id": each, "key": key_of(each)} for each in ids])
            had = insert(previous_files).values(stored_at=now(), replaced_at=now(), keep=True, **of_document, **about)
            numbered = enumerate(ids, start + 1)
            conn.execute(had, [{"file_id": each, "number": number} for number, each in numbered])
        conn.execute(update(documents).where(documents.c.id == of_document["document_id"]).values(file_number=MANY + 1))
        if databases.POSTGRESQL:
            added = text("UPDATE usage SET bytes = bytes + :bytes WHERE user_id = :user")
            conn.execute(added, {"bytes": MANY * 10, "user": of_document["owner_id"]})
    return document


def uncounted(conn: Connection) -> None:
    """Have no trigger count each row, which would take long."""
    if databases.POSTGRESQL:
        conn.exec_driver_sql("SET LOCAL session_replication_role = replica")


@pytest.mark.postgresql
def test_a_document_that_had_very_many_files_goes_in_time(tmp_path: Path) -> None:
    limits = {"DATABASE_STATEMENT_TIMEOUT": "1.5"}  # a third of the default
    with Server(tmp_path / "var", limits) as server:
        user = server.register()
        document = with_many(server, user)
        assert used(user) == document["size"] + MANY * 10
        answer = user.http.delete(f"/documents/{document['id']}?permanent=true")
        assert answer.status_code == 204, answer.text
        assert used(user) == 0
        ledger = Ledger(server.data_dir)
        assert not ledger.rows(select(previous_files))
        assert not ledger.rows(select(files).where(files.c.discarded_at.is_(None)))
