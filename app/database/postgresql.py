"""PostgreSQL: units of work on SQLAlchemy's asyncio engine over asyncpg.

A unit of `write` runs at REPEATABLE READ: all its statements see one snapshot, and if one of them meets a row that
another transaction has changed since, the whole unit is run again. Units therefore behave as if they ran one after the
other, as on SQLite. READ COMMITTED is not enough: an upsert could overwrite a record, such as that of an
Idempotency-Key, that was inserted after the unit had checked for it. SERIALIZABLE would also protect rows that a unit
only reads, but would run more units again; here, every row that a decision depends on is also written.

A unit that is `alone_with` something takes a lock of that name first, for which the units of all processes queue in
order of arrival, and runs at READ COMMITTED. At REPEATABLE READ each of them would have to be run again for each that
came before, and the process with the longer queue would keep the others out.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import structlog
from sqlalchemy import NullPool, make_url, text
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app import migrations
from app.database.base import (
    NARROW_IT,
    SEARCH_TIMEOUT,
    SEARCH_WAIT,
    SEARCHES,
    Effect,
    Retry,
    T,
    Unit,
    metadata,
    run_effects,
    run_unit,
    unavailable,
)
from app.database.sessions import POOL_TIMEOUT, Sessions, connect_args, sqlstate
from app.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown, SearchTooBroad, StorageFull, TooBusy
from app.limiter import Limiter
from app.telemetry import context

log = structlog.get_logger()

RETRY_TIMEOUT = 4.5  # seconds during which a unit that lost a race is run again
MIGRATION_TIMEOUT = 25.0  # seconds that a starting process waits for another one's migration

_MIGRATING = 0x646F63756D656E74  # the key of the advisory lock: "document" in ASCII
_LOST_RACE = ("40001", "40P01")  # serialization failure, deadlock
_DISK_FULL = "53100"
_CANCELED = "57014"  # by statement_timeout
# Classes and codes of temporary errors: connection, rollback, resources, operator intervention (a timeout, a shutdown),
# system; a read-only standby, an idle session that was ended, a lock that was not obtained in time.
_UNAVAILABLE = ("08", "40", "53", "57", "58", "25006", "25P03", "55P03")
# Classes of errors that end the session, so that the outcome of what was running is unknown.
_CUT_OFF = ("08", "57")
# Classes and codes of errors that only another setting can fix: a wrong role or password, no such database, no right to
# create tables, a pooler that sends prepared statements to sessions that have not prepared them.
_MISCONFIGURED = ("28", "3D000", "42501", "26000", "42P05")
_UNCONNECTED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, PoolTimeoutError)


class PostgresqlDatabase:
    """Adapter of the Database port over a PostgreSQL server, 13 or newer."""

    def __init__(self, url: str, *, pool_size: int, statement_timeout: float) -> None:
        self._url = url
        self.listeners: list[Any] = []
        self.audit_keys: list[bytes] = []
        self._sessions = Sessions(url)
        self._engine = self._sessions.pool(pool_size, statement_timeout)
        self._engine.update_execution_options(listeners=self.listeners, audit_keys=self.audit_keys)
        # Without BEGIN and ROLLBACK a read costs one round trip; each statement has a snapshot of its own.
        self._readers = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # At REPEATABLE READ a unit would see what was there before it has waited for its lock.
        self._locking = self._engine.execution_options(isolation_level="READ COMMITTED")
        # The pool's own queue lets newcomers overtake those that wait. One connection is kept for urgent writes: when a
        # table is locked for long, 20 requests/s that wait for it hold all the others for longer than a lease may last.
        self._connections = Limiter(pool_size - 1, POOL_TIMEOUT)
        self._urgent_connection = Limiter(1, POOL_TIMEOUT)
        # A plan for any text would not know whether it is in few documents or in all.
        timeout = min(SEARCH_TIMEOUT, statement_timeout)
        searching = self._sessions.pool(SEARCHES, timeout, plan_cache_mode="force_custom_plan")
        self._searchers = searching.execution_options(isolation_level="AUTOCOMMIT")
        self._search_limiter = Limiter(SEARCHES, SEARCH_WAIT)
        self._unit_timeout = RETRY_TIMEOUT + statement_timeout
        self._writing: set[asyncio.Task[Any]] = set()
        self._serial: WeakValueDictionary[UUID, Limiter] = WeakValueDictionary()

    def migrate(self) -> None:
        asyncio.run(self._migrate())

    async def read(self, unit: Unit[T]) -> T:
        return await self._retried(partial(self._read, unit))

    async def search(self, unit: Unit[T]) -> T:
        async with self._search_limiter.acquire(context.owner()):
            return await self._retried(partial(self._search, unit))

    async def write(self, unit: Unit[T], *, urgent: bool = False, alone_with: UUID | None = None) -> T:
        # A task of its own: cancelling the caller must not leave a connection in the middle of a commit.
        connections = self._urgent_connection if urgent else self._connections
        task = asyncio.create_task(self._write(unit, connections, alone_with))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def check(self) -> None:
        # Locks nothing, which whoever holds it could prevent, and writes nothing: every process asks again and again.
        if await self.read(lambda conn: conn.scalar(text("SHOW transaction_read_only"))) == "on":
            self._sessions.replace()
            raise unavailable("read-only")

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)
        await self._engine.dispose()
        await self._searchers.dispose()

    async def _retried(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run a unit, and run it again after a lost race or a lost connection, for RETRY_TIMEOUT at most."""
        give_up_at = time.monotonic() + RETRY_TIMEOUT
        try:
            # A server that no longer answers enforces no timeout of its own.
            async with asyncio.timeout(self._unit_timeout):
                while True:
                    try:
                        return await run()
                    except (DBAPIError, Retry) as error:
                        if not _is_retryable(error) or time.monotonic() > give_up_at:
                            raise _translated(error) from error
        except TimeoutError:
            self._sessions.replace()
            raise unavailable("silent") from None

    async def _read(self, unit: Unit[T]) -> T:
        async with _connected(self._readers, self._connections) as conn:
            return await conn.run_sync(unit)

    async def _search(self, unit: Unit[T]) -> T:
        async with _connected(self._searchers) as conn:
            try:
                return await conn.run_sync(unit)
            except DBAPIError as error:
                if sqlstate(error) == _CANCELED:
                    raise SearchTooBroad(NARROW_IT) from None
                raise

    async def _write(self, unit: Unit[T], connections: Limiter, alone_with: UUID | None) -> T:
        async with AsyncExitStack() as stack:
            if alone_with is not None:
                await stack.enter_async_context(self._alone(alone_with))
            outcome, effects = await self._retried(partial(self._commit, unit, connections, alone_with))
        run_effects(effects)
        return outcome

    @asynccontextmanager
    async def _alone(self, key: UUID) -> AsyncIterator[None]:
        """Keep the other units of this process that are alone with the same waiting here: without a connection, which
        others may need. Raises TooBusy."""
        async with self._serial.setdefault(key, Limiter(1, POOL_TIMEOUT)).acquire(key):
            yield

    async def _commit(self, unit: Unit[T], connections: Limiter, alone_with: UUID | None) -> tuple[T, list[Effect]]:
        async with _connected(self._engine if alone_with is None else self._locking, connections) as conn:
            if alone_with is not None:
                await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": alone_with.int % 2**63})
            outcome, effects = await conn.run_sync(run_unit, unit)
            try:
                await conn.commit()
            except (DBAPIError, asyncio.CancelledError) as error:
                if _is_refusal(error):
                    raise
                log.warning("database.unconfirmed", reason=sqlstate(error) or type(error).__name__)
                raise OutcomeUnknown from error
            return outcome, effects

    async def _migrate(self) -> None:
        settings = connect_args(self._url, statement_timeout=0, lock_timeout=MIGRATION_TIMEOUT)
        engine = create_async_engine(self._url, poolclass=NullPool, connect_args=settings)
        try:
            async with engine.connect() as conn:
                if (encoding := await conn.scalar(text("SHOW server_encoding"))) != "UTF8":
                    raise ConfigurationError(f"DATABASE_URL: the database's encoding is {encoding}, and must be UTF8")
                await conn.commit()
                if await conn.run_sync(migrations.is_current):
                    return  # without the lock: a pooler would pass it on with the session
                await _lock_migration(conn)
                await conn.run_sync(migrations.upgrade, metadata)
                # The next plans are made before autovacuum has seen what was built, or filled in.
                await conn.execute(text(f"ANALYZE {', '.join(metadata.tables)}"))
                await conn.commit()
        except _UNCONNECTED as error:
            raise _startup_error(error, self._url) from error
        finally:
            await engine.dispose()


async def _lock_migration(conn: AsyncConnection) -> None:
    """Keep other starters out for as long as the session lasts. Raises DatabaseUnavailable.

    It asks again and again: a statement that waits for a lock has a snapshot, and an index that is built concurrently
    waits for every snapshot to end.
    """
    give_up_at = time.monotonic() + MIGRATION_TIMEOUT
    while not await conn.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATING}):
        await conn.commit()
        if time.monotonic() > give_up_at:
            raise DatabaseUnavailable("DATABASE_URL: another process is migrating the database")
        await asyncio.sleep(0.1)
    await conn.commit()


@asynccontextmanager
async def _connected(engine: AsyncEngine, connections: Limiter | None = None) -> AsyncIterator[AsyncConnection]:
    """Yield a connection, and roll back at the end what was not committed. Raises DatabaseUnavailable."""
    async with AsyncExitStack() as stack:
        try:
            if connections:
                await stack.enter_async_context(connections.acquire(context.owner()))
            conn = await stack.enter_async_context(engine.connect())
        except (TooBusy, *_UNCONNECTED) as error:
            reason = "pool" if isinstance(error, TooBusy) else sqlstate(error) or type(error).__name__
            raise unavailable(reason) from error
        yield conn


def _is_retryable(error: DBAPIError | Retry) -> bool:
    """Return whether the unit left no trace and may succeed on fresh data or on another connection."""
    if isinstance(error, Retry) or error.connection_invalidated or sqlstate(error) in _LOST_RACE:
        return True
    # The statement was prepared before the schema changed; asyncpg has now dropped it.
    return isinstance(_driver_error(error), asyncpg.InvalidCachedStatementError)


def _is_refusal(error: BaseException) -> bool:
    """Return whether the server refused a commit and kept the session, so that nothing was committed."""
    state = sqlstate(error)
    return bool(state) and not state.startswith(_CUT_OFF)


def _translated(error: DBAPIError | Retry) -> Exception:
    """Return the port's error for a driver's error. Any other is a programming error and is returned as it is."""
    state = sqlstate(error)
    if state == _DISK_FULL:
        return StorageFull()
    if state.startswith(_UNAVAILABLE) or isinstance(error, Retry) or error.connection_invalidated:
        return unavailable(state or type(error).__name__)
    return error


def _startup_error(error: Exception, url: str) -> Exception:
    """Return the error for a failed start. Its one line names the URL without its password, and the reason."""
    cause = _driver_error(error)
    reason = " ".join(str(cause).split()) or "no answer"
    message = f"DATABASE_URL: {make_url(url).render_as_string()}: {reason}"
    wrong_tls = isinstance(cause, (ssl.SSLError, asyncpg.ClientConfigurationError)) or "rejected SSL" in reason
    if wrong_tls or sqlstate(error).startswith(_MISCONFIGURED):
        return ConfigurationError(message)
    if isinstance(error, DBAPIError) and _translated(error) is error:
        return error
    return DatabaseUnavailable(message)


def _driver_error(error: Exception) -> BaseException:
    """Return the error that asyncpg itself raised."""
    return (error.orig and error.orig.__cause__) or error if isinstance(error, DBAPIError) else error
