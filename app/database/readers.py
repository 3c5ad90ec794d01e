"""Reads on SQLite: brief ones on the event loop, the others in threads."""

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, exc

from app.database import sqlite_engines
from app.database.base import T, Unit
from app.errors import AppError


class Readers:
    """Runs units on connections that see what was committed before each statement."""

    def __init__(self, file: Path) -> None:
        self._inline = _Inline(file)
        self._threads = sqlite_engines.threaded_readers(file)

    async def read(self, unit: Unit[T], *, brief: bool) -> T:
        """Run a unit; `brief` asks for the event loop. Raises DBAPIError, SQLAlchemy's TimeoutError."""
        if brief:
            with suppress(exc.DBAPIError):  # on any driver error, a thread tries again, waits for the lock, or raises
                return self._inline.read(unit)
        async with self._threads.connect() as conn:
            return await conn.run_sync(unit)

    async def close(self) -> None:
        self._inline.close()
        await self._threads.dispose()


class _Inline:
    """One connection that is kept open for reads on the event loop.

    In WAL mode a reader waits for nobody, and asking a thread for a few rows takes longer than reading them: a whole
    request would cost 1.9 times the CPU.
    """

    def __init__(self, file: Path) -> None:
        self._engine = sqlite_engines.inline_reader(file)
        self._conn: Connection | None = None

    def read(self, unit: Unit[T]) -> T:
        """Run a unit. Raises DBAPIError, also for a lock. After an unexpected error the next unit reconnects."""
        try:
            if self._conn is None:
                self._conn = self._engine.connect()
            return unit(self._conn)
        except AppError:
            raise
        except Exception:
            self.close()  # a half-read statement would pin its snapshot for every later unit
            raise

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
