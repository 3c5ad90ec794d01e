"""SQLite: one writer thread groups concurrent units into durable commits, while readers.py reads beside it.

WAL with synchronous=FULL puts a commit on disk before its callers are answered. Grouping makes that affordable: while
one commit syncs, the next group gathers. Each unit runs in a SAVEPOINT of its own, so that it fails alone.

Several processes share one file through flock, which queues them fairly. SQLite's own busy handler polls and starves
one of two busy writers.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from app import migrations
from app.database.ballast import Ballast
from app.database.base import Effect, Retry, T, Unit, metadata, run_effects, run_unit, unavailable
from app.database.readers import BUSY_TIMEOUT, Readers
from app.errors import OutcomeUnknown, StorageFull, TooBusy

log = structlog.get_logger()

WRITE_TIMEOUT = 4.5  # seconds that a unit waits to begin before it fails with DatabaseUnavailable
CLOSE_TIMEOUT = 4.5  # seconds that closing waits for the writer thread: a frozen process may hold the lock
GROUP = 128  # units that may share one commit
ATTEMPTS = 3  # runs of a unit that raises Retry

_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
_UNAVAILABLE = (*_LOCKED, "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_CORRUPT")


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    """A unit of work on its way through the writer thread.

    It is claimed exactly once: by the writer, which runs it, or by its caller, who gives up before it has begun.
    """

    unit: Unit[T]
    done: "asyncio.Future[T]"
    # The caller's context tells the unit which request it belongs to.
    context: Context = field(default_factory=copy_context)
    effects: list[Effect] = field(default_factory=list)
    outcome: T | None = None
    error: Exception | None = None
    _claimed: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Return whether the caller of this method is the first to claim the unit."""
        return self._claimed.acquire(blocking=False)

    def expire(self) -> None:
        """Fail the unit with DatabaseUnavailable unless it has begun."""
        if self.claim():
            self.done.set_exception(unavailable("timeout"))

    def deliver(self) -> None:
        """Run the effects of a committed unit, then resolve the caller's future unless the caller was cancelled."""
        if self.error is None:  # a failed commit sets an error on units that went well
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
        self._lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._engine = _writer(file)
        self.listeners: list[Any] = []
        self.audit_keys: list[bytes] = []
        self._engine.update_execution_options(listeners=self.listeners, audit_keys=self.audit_keys)
        self._readers = Readers(file)
        self._ballast = Ballast(Path(f"{file}.ballast"))
        self._waiting: deque[_Write[Any]] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each unit that waits, and one to stop
        self._closing = False
        self._thread: threading.Thread | None = None

    def migrate(self) -> None:
        try:
            with self._locked(), self._engine.connect() as conn:
                cursor = conn.connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={WRITE_TIMEOUT * 1000:.0f}")
                # Two processes cannot do this at the same time, and nobody can inside a transaction.
                cursor.execute("PRAGMA journal_mode=WAL")
                cursor.close()  # an open statement would hold a lock
                migrations.upgrade(conn, metadata)
                self._ballast.load()
        except (DBAPIError, sqlite3.OperationalError) as error:
            raise _translated(error) from error

    async def read(self, unit: Unit[T]) -> T:
        try:
            return await self._readers.read(unit)
        except (DBAPIError, TooBusy) as error:
            raise _translated(error) from error

    async def search(self, unit: Unit[T]) -> T:
        try:
            return await self._readers.search(unit)
        except DBAPIError as error:
            raise _translated(error) from error

    async def write(self, unit: Unit[T], *, urgent: bool = False, alone_with: UUID | None = None) -> T:
        loop = asyncio.get_running_loop()
        write: _Write[T] = _Write(unit, loop.create_future())
        self._start()
        (self._waiting.appendleft if urgent else self._waiting.append)(write)
        # After all units of this round of the event loop, so that they share a commit (1.07x accepted/s).
        loop.call_soon(self._signals.put, None)
        timer = loop.call_later(WRITE_TIMEOUT, write.expire)
        try:
            return await write.done
        finally:
            timer.cancel()
            write.claim()  # if the caller was cancelled: a unit that has not begun must never begin

    async def check(self) -> None:
        # The value means nothing, but only a commit that writes something notices a full disk.
        await self.write(lambda conn: conn.execute(text("PRAGMA user_version = 0")))

    async def close(self) -> None:
        if self._thread:
            self._closing = True
            self._signals.put(None)
            await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT)
        self._engine.dispose()
        await self._readers.close()
        os.close(self._lock)

    def _start(self) -> None:
        if self._thread is None:
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Commit what waits, until closed. No error may end this thread; units that wait meanwhile time out."""
        while True:
            try:
                with self._engine.connect() as conn:
                    while self._waiting or not self._closing:
                        self._signals.get()
                        if self._waiting:
                            _deliver_all(self._commit(conn))
            except Exception:
                log.exception("database.writer_failed")
                time.sleep(1)
            else:
                return

    def _commit(self, conn: Connection, again: Sequence[_Write[Any]] = ()) -> list[_Write[Any]]:
        """Commit up to GROUP units of those that wait by the time the lock is held. Return them, with their outcomes.

        The list is empty if another process held SQLite's lock: they wait on, until their callers' timeouts. On a full
        disk the same units are committed `again`, after the ballast has made room for them.
        """
        group = list(again)
        committing = False
        try:
            with self._locked(), conn.begin():
                # Units are claimed only once the lock is held, so that those that timed out meanwhile stay out.
                group = group or self._claimed()
                for write in group:
                    _run(conn, write)
                committing = True
            self._ballast.load()
        except Exception as error:  # the thread must survive any error
            if not group and _error_name(error).startswith(_LOCKED):
                self._signals.put(None)
                return []
            if _error_name(error).startswith("SQLITE_FULL") and self._ballast.drop():
                log.warning("database.ballast_dropped")
                return self._commit(conn, group)
            if not isinstance(error, (DBAPIError, sqlite3.Error)):
                log.exception("database.writer_failed")
            group = group or self._claimed()
            for write in group:
                write.error = _translated(error, committing=committing)
        return group

    def _claimed(self) -> list[_Write[Any]]:
        """Claim up to GROUP units, without waiting for more."""
        group: list[_Write[Any]] = []
        while self._waiting and len(group) < GROUP:
            write = self._waiting.popleft()
            if write.claim():
                group.append(write)
        return group

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the right to write among all processes."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def _writer(file: Path) -> Engine:
    """Return an engine whose transactions begin by taking the write lock and are durable once committed."""
    arguments = {"check_same_thread": False, "timeout": BUSY_TIMEOUT, "isolation_level": None}  # None: no BEGIN
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool, connect_args=arguments, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.executescript("PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _run(conn: Connection, write: _Write[Any]) -> None:
    """Run one unit, again if it raises Retry, in a SAVEPOINT of its own, so that its failure undoes it alone.

    Raises DBAPIError if SQLite has rolled back the whole transaction.
    """
    execute = conn.connection.cursor().execute  # on the driver: SQLAlchemy takes ten times as long
    for _ in range(ATTEMPTS):
        execute("SAVEPOINT unit")
        try:
            write.outcome, write.effects = write.context.run(run_unit, conn, write.unit)
            write.error = None
        except Exception as error:
            if isinstance(error, DBAPIError) and not getattr(conn.connection.dbapi_connection, "in_transaction", False):
                raise  # disk full, I/O error
            write.error = _translated(error)
            execute("ROLLBACK TO unit")
        execute("RELEASE unit")
        if not isinstance(write.error, Retry):
            return


def _deliver_all(group: list[_Write[Any]]) -> None:
    """Deliver each unit on its own event loop, with one call for each loop."""
    for loop in {write.done.get_loop() for write in group}:
        own = [write for write in group if write.done.get_loop() is loop]
        loop.call_soon_threadsafe(_deliver, own)


def _deliver(group: list[_Write[Any]]) -> None:
    for write in group:
        write.deliver()


def _translated(error: Exception, *, committing: bool = False) -> Exception:
    """Return the port's error for a driver's error. Any other is a programming error and is returned as it is."""
    name = _error_name(error)
    if name.startswith("SQLITE_FULL"):
        return StorageFull()
    if isinstance(error, TooBusy) or name.startswith(_UNAVAILABLE):
        error = unavailable(name or "pool")
        # A commit that was written but not synced may still be there after a crash.
        return OutcomeUnknown() if committing and name.startswith("SQLITE_IOERR") else error
    return error


def _error_name(error: Exception) -> str:
    """Return SQLite's name for an error, such as SQLITE_BUSY_SNAPSHOT, or "" for any other error."""
    return getattr(getattr(error, "orig", error), "sqlite_errorname", "")
