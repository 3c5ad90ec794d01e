"""Reads on SQLite: brief ones where they are asked for, on the event loop; the others in threads, by aiosqlite."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.database.base import T, Work
from app.errors import AppError

READERS = 4
READ_PATIENCE = 30.0  # seconds for a reader: in WAL none waits for a lock, so a queue is load, and passes
_BUSY_MS = 500


class Readers:
    """Connections that see what is committed by the time of each statement."""

    def __init__(self, file: Path) -> None:
        self._inline = _Inline(file)
        self._threads = create_async_engine(
            f"sqlite+aiosqlite:///{file}",
            poolclass=AsyncAdaptedQueuePool,
            pool_size=READERS,
            max_overflow=0,
            pool_timeout=READ_PATIENCE,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,  # errors are logged; what users store is not
        )
        event.listen(self._threads.sync_engine, "connect", _prepare)

    async def read(self, work: Work[T], *, brief: bool) -> T:
        """Raises DBAPIError, sqlalchemy's TimeoutError."""
        if brief:
            with suppress(DBAPIError):  # whatever it is, a thread waits for its end, or tells of it
                return self._inline.read(work)
        async with self._threads.connect() as conn:
            return await conn.run_sync(work)

    async def close(self) -> None:
        self._inline.close()
        await self._threads.dispose()


class _Inline:
    """One connection, kept open. In WAL a reader waits for nobody, and to ask a thread for a few rows takes longer than
    to read them: 1.9 times the CPU of a whole request."""

    def __init__(self, file: Path) -> None:
        self._engine = create_engine(
            f"sqlite:///{file}",
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": 0},  # for a lock: nothing else would run meanwhile
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", _prepare_inline)
        self._conn: Connection | None = None

    def read(self, work: Work[T]) -> T:
        """Raises DBAPIError, also for a lock. After any surprise the next unit gets a new connection."""
        try:
            if self._conn is None:
                self._conn = self._engine.connect()
            return work(self._conn)
        except AppError:
            raise
        except Exception:
            self.close()  # or a statement that was left half read would show its own moment to all that follow
            raise

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _prepare(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_BUSY_MS}", "query_only=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    # SQLite's own knows ASCII only: a search in any case would miss É for é.
    connection.create_function("lower", 1, lambda value: value and value.lower(), deterministic=True)


def _prepare_inline(connection: Any, _: object) -> None:
    connection.execute("PRAGMA query_only=ON")
