"""SQLite: one writer thread that groups concurrent units into durable commits; readers beside it (readers.py).

Durability: WAL with synchronous=FULL, so a commit is on disk before its callers hear of it. Grouping makes that
affordable: while one commit syncs, the next group gathers. Each unit runs in a SAVEPOINT of its own and fails alone.

Several processes on one file take turns by flock, which queues them fairly; SQLite's own busy handler polls, and
starves one of two busy writers.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from app import migrations
from app.database.base import Effect, Retry, T, Work, metadata, run_effects, running
from app.database.readers import Readers
from app.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull

log = structlog.get_logger()

PATIENCE = 4.5  # seconds that a unit waits for its turn before its caller is told to retry
GROUP = 128  # units that share a commit at the most
_BUSY_MS = 500


@dataclass(slots=True, eq=False)
class _Unit(Generic[T]):
    """One unit of work on its way through the writer thread. Its ticket is taken once: by the writer or the caller."""

    work: Work[T]
    done: "asyncio.Future[T]"
    # The caller's: the unit must know whose request it is part of.
    context: Context = field(default_factory=copy_context)
    effects: list[Effect] = field(default_factory=list)
    outcome: T | None = None
    error: Exception | None = None
    _ticket: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        return self._ticket.acquire(blocking=False)

    def withdraw(self) -> None:
        """Fail, unless it has begun."""
        if self.take():
            self.done.set_exception(DatabaseUnavailable())

    def deliver(self) -> None:
        """Tell of it what is to be told, then resolve the caller's future, if the caller is still there."""
        if self.error is None:  # the commit may have failed after the unit itself had gone well
            self.context.run(run_effects, self.effects)
        if self.done.cancelled():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.outcome)  # type: ignore[arg-type]


class SqliteDatabase:
    """Adapter of the Database port over one SQLite file on a local disk (never a network share)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self._turns = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._engine = _engine(file)
        self._readers = Readers(file)
        self._queue: queue.SimpleQueue[_Unit[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def migrate(self) -> None:
        try:
            with self._turn(), self._engine.connect() as conn:
                cursor = conn.connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={PATIENCE * 1000:.0f}")
                # Cannot be done by two processes at once, nor inside a transaction.
                cursor.execute("PRAGMA journal_mode=WAL")
                cursor.close()  # an open statement would hold a lock
                migrations.upgrade(conn, metadata)
        except (DBAPIError, sqlite3.OperationalError) as error:
            raise _translated(error) from error

    async def read(self, work: Work[T], *, brief: bool = False) -> T:
        try:
            return await self._readers.read(work, brief=brief)
        except (DBAPIError, PoolTimeoutError) as error:
            raise _translated(error) from error

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        loop = asyncio.get_running_loop()
        unit: _Unit[T] = _Unit(work, loop.create_future())
        self._start()
        loop.call_soon(self._queue.put, unit)  # with those of other callers: one wake-up, one commit (1.07x accepted/s)
        patience = loop.call_later(PATIENCE, unit.withdraw)
        try:
            return await unit.done
        finally:
            patience.cancel()
            unit.take()  # cancelled: what has not begun must never begin

    async def is_in_use(self) -> bool:
        await self._let_go()
        return await asyncio.to_thread(_is_in_use, self._file)

    async def check(self) -> None:
        # Written to no purpose, but written: only a commit that has something to write finds a disk full.
        await self.write(lambda conn: conn.execute(text("PRAGMA user_version = 0")))

    async def close(self) -> None:
        await self._let_go()
        os.close(self._turns)

    async def _let_go(self) -> None:
        if self._thread:
            asyncio.get_running_loop().call_soon(self._queue.put, None)  # behind the units already accepted
            await asyncio.to_thread(self._thread.join, PATIENCE)  # a frozen process may hold the lock
            self._thread = None
        self._engine.dispose()
        await self._readers.close()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Serve the queue until it is closed. Nothing may end this thread before; units meanwhile time out."""
        while True:
            try:
                with self._engine.connect() as conn:
                    while first := self._queue.get():
                        _hand_back(self._attempt(conn, first))
            except Exception:
                log.exception("database.writer_failed")
                time.sleep(1)
            else:
                return

    def _attempt(self, conn: Connection, first: _Unit[Any]) -> list[_Unit[Any]]:
        """Commit `first` and whatever has queued by the time the lock is ours. Returns the units with an outcome."""
        group: list[_Unit[Any]] = []
        committing = False
        try:
            with self._turn(), conn.begin():
                # Units are taken only once the lock is held, so that those who lost patience meanwhile stay out.
                group = self._gather(first)
                for unit in group:
                    _run_in_savepoint(conn, unit)
                committing = True
        except (DBAPIError, sqlite3.Error) as error:
            if not group and _is_busy(error):
                self._queue.put(first)  # its caller decides how long to wait
                return []
            group = group or self._gather(first)
            for unit in group:
                unit.error = _translated(error, committing=committing)
        except Exception as error:  # the thread must outlive any surprise
            log.exception("database.writer_failed")
            group = group or self._gather(first)
            for unit in group:
                unit.error = error
        return group

    def _gather(self, first: _Unit[Any]) -> list[_Unit[Any]]:
        group = [first] if first.take() else []
        while len(group) < GROUP:
            try:
                unit = self._queue.get_nowait()
            except queue.Empty:
                break
            if unit is None:
                self._queue.put(None)
                break
            if unit.take():
                group.append(unit)
        return group

    @contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.flock(self._turns, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turns, fcntl.LOCK_UN)


def _run_in_savepoint(conn: Connection, unit: _Unit[Any]) -> None:
    """Run one unit so that its failure undoes it alone. Raises the driver's error where all is lost."""
    execute = conn.connection.cursor().execute  # past SQLAlchemy, which takes ten times as long
    for _ in range(3):
        execute("SAVEPOINT unit")
        try:
            unit.outcome, unit.effects = unit.context.run(running, conn, unit.work)
            unit.error = None
        except Retry as error:
            unit.error = error
        except DBAPIError as error:
            if not getattr(conn.connection.dbapi_connection, "in_transaction", False):
                raise  # SQLite itself rolled everything back: disk full, I/O error
            unit.error = _translated(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's, not this thread's
            unit.error = error
        if unit.error:
            execute("ROLLBACK TO unit")
        execute("RELEASE unit")
        if not isinstance(unit.error, Retry):
            break


def _hand_back(group: list[_Unit[Any]]) -> None:
    """Deliver on each unit's own event loop, all of a loop in one call."""
    for loop in {unit.done.get_loop() for unit in group}:
        mine = [unit for unit in group if unit.done.get_loop() is loop]
        loop.call_soon_threadsafe(_deliver, mine)


def _deliver(group: list[_Unit[Any]]) -> None:
    for unit in group:
        unit.deliver()


def _is_in_use(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # is had by who is alone
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise _translated(error) from error
            return True
    return False


def _engine(file: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{file}", poolclass=NullPool, connect_args={"check_same_thread": False}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # BEGIN is ours
        for pragma in (f"busy_timeout={_BUSY_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _is_busy(error: Exception) -> bool:
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", "")
    return bool(name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")))


def _translated(error: Exception, *, committing: bool = False) -> Exception:
    """A driver's error as this project's; a statement that can never succeed stays the programming error that it is."""
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return StorageFull()
    if isinstance(error, PoolTimeoutError) or name.startswith(
        ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_CORRUPT")
    ):
        log.warning("database.unavailable", reason=name or "pool")
        # What was written and not synced may be found by whoever opens the file after a crash.
        return OutcomeUnknown() if committing and name.startswith("SQLITE_IOERR") else DatabaseUnavailable()
    return error
