"""The rows of a transfer: in batches, between the engines, and while somebody writes."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update
from uuid_utils.compat import uuid7

from app import wiring
from app.auth.models import users
from app.database import Database, metadata, now
from app.database.base import Unit
from app.database.postgresql import PostgresqlDatabase
from app.database.sqlite import SqliteDatabase
from app.documents.models import document_tags, documents
from app.events import events
from app.transfer import Transfer, TransferError, rows
from tests.support import databases

assert wiring  # imports every module that defines a table


def database(data_dir: Path, *, of_this_run: bool = True) -> Database:
    if of_this_run and databases.POSTGRESQL:
        return PostgresqlDatabase(databases.url(data_dir), pool_size=2, statement_timeout=5)
    return SqliteDatabase(data_dir / "app.db")


def append(conn: Connection, event: str, *, actor: str, document_id: UUID | None = None, **data: Any) -> None:
    row = {"id": uuid7(), "event": event, "at": now(), "actor": actor, "document_id": document_id, "data": data}
    conn.execute(insert(events).values(**row))


async def filled(db: Database, count: int) -> None:
    """With accounts, tags in every case, and the events of both."""
    await asyncio.to_thread(db.migrate)

    def fill(conn: Connection) -> None:
        owner = uuid7()
        conn.execute(insert(users).values(**account(owner)))
        conn.execute(insert(documents), [document(owner) for _ in range(count)])
        some = conn.scalars(select(documents.c.id).limit(count)).all()
        tags = ["a", "B", "b", "É", "é", "z", "Z", "_", "ß", "ss", "-", "\U0001f600"]
        conn.execute(insert(document_tags), [{"tag": tag, "document_id": each} for tag in tags for each in some])
        for each in some:
            append(
                conn, "document.uploaded", actor="operator", document_id=each, size=1, nested={"a": [None, 1.5, "É"]}
            )

    await db.write(fill)


def account(id_: UUID) -> dict[str, Any]:
    return {"id": id_, "email": f"{id_}@example.com", "password_hash": "x", "active": True, "created_at": now()}


def document(owner: UUID) -> dict[str, Any]:
    id_, moment = uuid7(), datetime(2026, 11, 22, 5, 30, 0, 123456, UTC)
    times = {"created_at": moment, "updated_at": moment}
    texts = {"filename": "É.pdf", "content_type": "application/pdf", "sha256": "0" * 64, "status": "UPLOADED"}
    return {"id": id_, "owner_id": owner, "size": 2**40, "version": 1, "tags": ["a"], **texts, **times}


@pytest.mark.parametrize("there", [True, False])
def test_tables_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    """From SQLite to the engine of this run, and the other way."""
    monkeypatch.setattr(rows, "BATCH", 7)

    async def scenario() -> None:
        source = database(tmp_path / "old", of_this_run=not there)
        target = database(tmp_path / "new", of_this_run=there)
        try:
            await filled(source, 23)
            await asyncio.to_thread(target.migrate)
            told: list[str] = []
            for _ in range(2):
                await rows.copy(source, target, told.append)
            assert {"documents: 23 rows", "document_tags: 276 rows", "events: 23 rows"} < set(told)
            # What is numbered goes on after what was copied.
            await target.write(lambda conn: append(conn, "user.registered", actor="operator"))
            assert await target.read(lambda conn: conn.scalar(select(func.max(events.c.seq)))) == 24
        finally:
            await source.close()
            await target.close()

    asyncio.run(scenario())


CHANGES: dict[str, Unit[Any]] = {
    "a new row": lambda conn: conn.execute(insert(users).values(**account(uuid7()))),
    "a new event": lambda conn: append(conn, "user.registered", actor="operator"),
    "another value": lambda conn: conn.execute(update(documents).values(version=2)),
    "a row less": lambda conn: conn.execute(delete(document_tags)),
}


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_written_before_it_is_verified_is_noticed(tmp_path: Path, where: str, change: str) -> None:
    assert_noticed(tmp_path, where, change, at=metadata.sorted_tables[-1].name)


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("change", ["a new row", "a new event", "a row less"])
def test_what_is_written_after_that_is_noticed(tmp_path: Path, where: str, change: str) -> None:
    assert_noticed(tmp_path, where, change, at="rows: every one compared")


def assert_noticed(tmp_path: Path, where: str, change: str, at: str) -> None:
    """What somebody does when the transfer has told that line, past it and gone again."""

    def tell(line: str) -> None:
        if line.startswith(at):
            with databases.engine(tmp_path / where).begin() as conn:
                CHANGES[change](conn)

    async def scenario() -> None:
        source, target = (database(tmp_path / name) for name in ("source", "target"))
        transfer = Transfer(source_db=source, target_db=target)
        try:
            await filled(source, 3)
            with pytest.raises(TransferError, match="meanwhile"):
                await transfer.run(tell)
        finally:
            await transfer.close()

    asyncio.run(scenario())
