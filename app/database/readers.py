"""Reads on SQLite: short ones on the event loop, the others in threads."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.database.base import NARROW_IT, SEARCH_TIMEOUT, SEARCH_WAIT, SEARCHES, T, Unit
from app.errors import AppError, SearchTooBroad
from app.limiter import Limiter
from app.telemetry import context

READERS = 4  # threads
BUSY_TIMEOUT = 0.5  # seconds that SQLite itself waits for a lock
_READ_TIMEOUT = 30.0  # seconds that a read waits while its owner is granted no thread
_INTERRUPT_INTERVAL = 0.1  # seconds between interrupts of a unit that nobody waits for: each ends one statement

# What a unit may take on the event loop. A list of 100 documents takes 2,000 to 9,000 steps, a search through all
# documents 13 for each of them. 10,000 steps take 0.1 to 1 ms where values are short. One step reads a whole value, so
# its length is limited, too; and no request counts a whole table, or reads thousands of values of nearly that length.
_STEPS = 1000  # steps of SQLite's virtual machine between two calls of the progress handler
_MAX_CALLS = 10
_MAX_LENGTH = 100_000  # bytes of a value

# Errors are logged, and what users store must not be.
_OPTIONS: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}


class Readers:
    """Runs units on connections that see what was committed before each statement.

    Each unit is first run on the event loop. In WAL mode a reader waits for nobody, and asking a thread for a few rows
    takes longer than reading them: a whole request would cost 1.9 times the CPU. A unit that takes too many steps, or
    that meets a lock, is run again in a thread.
    """

    def __init__(self, file: Path) -> None:
        self._inline = _Inline(file)
        self._limiter = Limiter(READERS, _READ_TIMEOUT)
        self._threads = _in_threads(file, READERS)
        self._search_limiter = Limiter(SEARCHES, SEARCH_WAIT)
        self._search_threads = _in_threads(file, SEARCHES)

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit. Raises DBAPIError, and TooBusy if no thread becomes free."""
        with suppress(exc.DBAPIError):  # the thread finds the same error again, or none
            return self._inline.read(unit)
        async with self._limiter.acquire(context.owner()), self._threads.connect() as conn:
            return await _interruptible(conn, unit)

    async def search(self, unit: Unit[T]) -> T:
        """Run a unit that may read very much. Raises DBAPIError, TooBusy, SearchTooBroad."""
        with suppress(exc.DBAPIError):
            return self._inline.read(unit)
        async with self._search_limiter.acquire(context.owner()), self._search_threads.connect() as conn:
            try:
                async with asyncio.timeout(SEARCH_TIMEOUT):
                    return await _interruptible(conn, unit)
            except TimeoutError:
                raise SearchTooBroad(NARROW_IT) from None

    async def close(self) -> None:
        self._inline.close()
        await self._threads.dispose()
        await self._search_threads.dispose()


def _in_threads(file: Path, count: int) -> AsyncEngine:
    """Return an engine with up to `count` connections, each in a thread of its own."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{file}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=count,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT},
        **_OPTIONS,
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    return engine


async def _interruptible(conn: AsyncConnection, unit: Unit[T]) -> T:
    """Run a unit in a thread. If the caller is cancelled, as at a timeout or shutdown, SQLite is told to stop."""
    driver: Any = (await conn.get_raw_connection()).driver_connection
    reading = asyncio.create_task(conn.run_sync(unit))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        while not reading.done():
            await driver.interrupt()
            await asyncio.wait([reading], timeout=_INTERRUPT_INTERVAL)
        reading.exception()  # an error that nobody asks for would be logged
        raise


class _Inline:
    """One connection that is kept open for reads on the event loop."""

    def __init__(self, file: Path) -> None:
        self._engine = create_engine(f"sqlite:///{file}", poolclass=NullPool, connect_args={"timeout": 0}, **_OPTIONS)
        event.listen(self._engine, "connect", self._prepare)
        self._conn: Connection | None = None
        self._calls = 0

    def read(self, unit: Unit[T]) -> T:
        """Run a unit. Raises DBAPIError, also for a lock, and for what is too long for the event loop."""
        self._calls = 0
        try:
            if self._conn is None:
                self._conn = self._engine.connect()
            return unit(self._conn)
        except AppError:
            raise
        except Exception as error:
            if not _is_too_long(error):
                self.close()  # a half-read statement would pin its snapshot for every later unit
            raise

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _prepare(self, connection: Any, record: object) -> None:
        _prepare(connection, record)
        connection.set_progress_handler(self._has_run_too_long, _STEPS)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_LENGTH)

    def _has_run_too_long(self) -> bool:
        """True makes SQLite stop. The first call may come early: it counts the steps of earlier runs, too."""
        self._calls += 1
        return self._calls > _MAX_CALLS


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()
    # SQLite's own lower() knows only ASCII, so that a search without regard to case would not match É and é.
    connection.create_function("lower", 1, lambda value: value and value.lower(), deterministic=True)


def _is_too_long(error: Exception) -> bool:
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", None)
    return name in ("SQLITE_INTERRUPT", "SQLITE_TOOBIG")
