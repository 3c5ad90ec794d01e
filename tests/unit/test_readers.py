"""Reads of SQLite begin on the event loop: they must never hold it up."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, TextClause, text

from app.database.readers import READERS
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


def counted(rows: int) -> TextClause:
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) SELECT count(*) FROM n"
    return text(query).bindparams(rows=rows)


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
    reading = asyncio.create_task(db.read(revision))
    asyncio.get_running_loop().call_later(0.5, other.close)
    assert await longest_pause(reading) < 0.4
    assert await reading


async def test_a_file_that_stays_locked_is_told_of(db: SqliteDatabase, tmp_path: Path) -> None:
    other = locked(tmp_path / "app.db")
    with pytest.raises(DatabaseUnavailable):
        await db.read(revision)
    other.close()
    assert await db.read(revision)


async def test_what_takes_many_steps_is_not_read_on_the_loop(db: SqliteDatabase) -> None:
    runs: list[int] = []

    def read(conn: Connection, rows: int) -> int:
        runs.append(rows)
        return conn.scalar(counted(rows)) or 0

    for rows in (10, 100_000, 10):
        assert await db.read(partial(read, rows=rows)) == rows
    assert runs == [10, 100_000, 100_000, 10]


async def test_a_large_value_is_not_read_on_the_loop(db: SqliteDatabase) -> None:
    await db.write(lambda conn: conn.execute(text("CREATE TABLE large AS SELECT 1 AS n, zeroblob(200000) AS value")))
    runs: list[str] = []

    def read(conn: Connection, column: str) -> object:
        runs.append(column)
        return conn.scalar(text(f"SELECT {column} FROM large"))  # noqa: S608 - our own names

    for column, value in (("n", 1), ("value", bytes(200_000)), ("n", 1)):
        assert await db.read(partial(read, column=column)) == value
    assert runs == ["n", "value", "value", "n"]


async def test_short_reads_go_on_where_long_ones_were_broken_off(db: SqliteDatabase) -> None:
    runs: list[str] = []

    def short(conn: Connection) -> str:
        runs.append("short")
        return revision(conn)

    for _ in range(5):
        await db.read(lambda conn: conn.scalar(counted(10_000)))
        for _ in range(300):  # the steps of all of them are counted together
            await db.read(short)
    assert len(runs) == 1500


async def test_who_goes_away_stops_a_long_read(db: SqliteDatabase) -> None:
    def endless(conn: Connection) -> None:
        for _ in range(1000):
            conn.scalar(counted(10**9))

    for _ in range(READERS + 1):
        reading = asyncio.create_task(db.read(endless))
        await asyncio.wait([reading], timeout=0.2)
        reading.cancel()
        async with asyncio.timeout(3):
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert await db.read(lambda conn: conn.scalar(counted(100_000))) == 100_000
