"""How this process connects to the SQLite file: an engine for the writer thread and two for readers."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

READERS = 4
READ_TIMEOUT = 30.0  # seconds that a read waits for a connection: no reader waits for a lock, so a queue is only load
BUSY_TIMEOUT = 0.5  # seconds that SQLite itself waits for a lock

# Errors are logged, and what users store must not be.
_OPTIONS: dict[str, Any] = {"hide_parameters": True}


def writer(file: Path) -> Engine:
    """Return an engine whose transactions begin by taking the write lock and are durable once committed."""
    engine = create_engine(
        f"sqlite:///{file}", poolclass=NullPool, connect_args={"check_same_thread": False}, **_OPTIONS
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        _set(connection, f"busy_timeout={BUSY_TIMEOUT * 1000:.0f}", "synchronous=FULL", "foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def inline_reader(file: Path) -> Engine:
    """Return an engine for reads on the event loop, which fail at once where they would have to wait for a lock."""
    engine = create_engine(
        f"sqlite:///{file}",
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": 0},
        **_OPTIONS,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        _set(connection, "query_only=ON")

    return engine


def threaded_readers(file: Path) -> AsyncEngine:
    """Return an engine with a pool of connections that read in threads, by aiosqlite."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=READ_TIMEOUT,
        isolation_level="AUTOCOMMIT",
        **_OPTIONS,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        _set(connection, f"busy_timeout={BUSY_TIMEOUT * 1000:.0f}", "query_only=ON")
        # SQLite's own lower() knows only ASCII, so that a search without regard to case would not match É and é.
        connection.create_function("lower", 1, lambda value: value and value.lower(), deterministic=True)

    return engine


def _set(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
