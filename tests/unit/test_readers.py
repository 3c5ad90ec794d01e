"""Brief reads of SQLite run on the event loop: they must never hold it up."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from app.database.sqlite import SqliteDatabase
from app.errors import DatabaseUnavailable


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    db = SqliteDatabase(tmp_path / "app.db")
    await asyncio.to_thread(db.migrate)
    yield db
    await db.close()


def revision(conn: Connection) -> str:
    return str(conn.scalar(text("SELECT version_num FROM alembic_version")))


def locked(file: Path) -> sqlite3.Connection:
    """The file is all its own: who is not connected yet has to wait, even in order to read."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def longest_pause(until: "asyncio.Task[object]") -> float:
    """Seconds that the event loop stood still meanwhile."""
    longest, last = 0.0, time.monotonic()
    while not until.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def test_the_loop_goes_on_while_the_file_is_locked(db: SqliteDatabase, tmp_path: Path) -> None:
    other = locked(tmp_path / "app.db")
    reading = asyncio.create_task(db.read(revision, brief=True))
    asyncio.get_running_loop().call_later(0.2, other.close)
    assert await longest_pause(reading) < 0.15
    assert await reading


async def test_a_file_that_stays_locked_is_told_of(db: SqliteDatabase, tmp_path: Path) -> None:
    other = locked(tmp_path / "app.db")
    with pytest.raises(DatabaseUnavailable):
        await db.read(revision, brief=True)
    other.close()
    assert await db.read(revision, brief=True)
