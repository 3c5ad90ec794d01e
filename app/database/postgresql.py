"""PostgreSQL: units of work on SQLAlchemy's asyncio engine over asyncpg.

A unit of `write` runs at REPEATABLE READ: all its statements see one snapshot, and if one of them meets a row that
another transaction has changed since, the whole unit is run again. Units therefore behave as if they ran one after the
other, as on SQLite. READ COMMITTED is not enough: an upsert could overwrite a record, such as that of an
Idempotency-Key, that was inserted after the unit had checked for it. SERIALIZABLE would also protect rows that a unit
only reads, but would run more units again; here, every row that a decision depends on is also written.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import NullPool, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app import migrations
from app.database.base import Effect, Retry, T, Unit, metadata, run_effects, run_unit
from app.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown, StorageFull, TooBusy
from app.limiter import Limiter

log = structlog.get_logger()

RETRY_TIMEOUT = 4.5  # seconds during which a unit that lost a race is run again
LOCK_TIMEOUT = 4.5  # seconds that a statement waits for a lock
IDLE_TIMEOUT = 4.5  # seconds until the server ends an idle transaction: a frozen process must not keep its locks
POOL_TIMEOUT = 1.5  # seconds that a unit waits for a connection while none is released
CONNECT_TIMEOUT = 1.5  # seconds
MIGRATION_TIMEOUT = 25.0  # seconds that a starting process waits for another one's migration
RECYCLE_SECONDS = 1800  # age at which a connection is replaced: firewalls forget idle ones, and servers are added

_APPLICATION = "document-api"
_MIGRATING = 0x646F63756D656E74  # the key of the advisory lock: "document" in ASCII
_LOST_RACE = ("40001", "40P01")  # serialization failure, deadlock
_DISK_FULL = "53100"
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
        self._engine = create_async_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_recycle=RECYCLE_SECONDS,
            execution_options={"listeners": self.listeners},
            hide_parameters=True,  # errors are logged, and what users store must not be
            connect_args=_connect_args(statement_timeout=statement_timeout, lock_timeout=LOCK_TIMEOUT),
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        event.listen(self._engine.sync_engine, "invalidate", _terminate)
        # Without BEGIN and ROLLBACK a read costs one round trip; each statement has a snapshot of its own.
        self._readers = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # The pool's own queue lets newcomers overtake those that wait. One connection is kept for urgent writes: when a
        # table is locked for long, 20 requests/s that wait for it hold all the others for longer than a lease may last.
        self._connections = Limiter(pool_size - 1, POOL_TIMEOUT)
        self._urgent_connection = Limiter(1, POOL_TIMEOUT)
        self._unit_timeout = RETRY_TIMEOUT + statement_timeout
        self._writing: set[asyncio.Task[Any]] = set()

    def migrate(self) -> None:
        asyncio.run(self._migrate())

    async def read(self, unit: Unit[T]) -> T:
        return await self._retried(partial(self._read, unit))

    async def write(self, unit: Unit[T], *, urgent: bool = False) -> T:
        # A task of its own: cancelling the caller must not leave a connection in the middle of a commit.
        task = asyncio.create_task(self._write(unit, self._urgent_connection if urgent else self._connections))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def check(self) -> None:
        # A standby or a read-only server refuses to lock a row.
        await self.write(lambda conn: conn.execute(text("SELECT version_num FROM alembic_version FOR UPDATE")))

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)
        await self._engine.dispose()

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
            log.warning("database.unavailable", reason="silent")
            raise DatabaseUnavailable from None

    async def _read(self, unit: Unit[T]) -> T:
        async with _connected(self._readers, self._connections) as conn:
            return await conn.run_sync(unit)

    async def _write(self, unit: Unit[T], connections: Limiter) -> T:
        outcome, effects = await self._retried(partial(self._commit, unit, connections))
        run_effects(effects)
        return outcome

    async def _commit(self, unit: Unit[T], connections: Limiter) -> tuple[T, list[Effect]]:
        async with _connected(self._engine, connections) as conn:
            outcome, effects = await conn.run_sync(run_unit, unit)
            try:
                await conn.commit()
            except (DBAPIError, asyncio.CancelledError) as error:
                if _is_refusal(error):
                    raise
                log.warning("database.unconfirmed", reason=_sqlstate(error) or type(error).__name__)
                raise OutcomeUnknown from error
            return outcome, effects

    async def _migrate(self) -> None:
        settings = _connect_args(statement_timeout=0, lock_timeout=MIGRATION_TIMEOUT)
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


def _connect_args(*, statement_timeout: float, lock_timeout: float) -> dict[str, Any]:
    """Return asyncpg's arguments. The timeouts, in seconds, are enforced by the server; 0 means none."""
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
    }
    settings = {name: f"{seconds * 1000:.0f}" for name, seconds in timeouts.items()}
    return {"timeout": CONNECT_TIMEOUT, "server_settings": {"application_name": _APPLICATION, **settings}}


@asynccontextmanager
async def _connected(engine: AsyncEngine, connections: Limiter) -> AsyncIterator[AsyncConnection]:
    """Yield a connection, and roll back at the end what was not committed. Raises DatabaseUnavailable."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(connections.acquire())
            conn = await stack.enter_async_context(engine.connect())
        except (TooBusy, *_UNCONNECTED) as error:
            reason = "pool" if isinstance(error, TooBusy) else _sqlstate(error) or type(error).__name__
            log.warning("database.unavailable", reason=reason)
            raise DatabaseUnavailable from error
        yield conn


def _prepare(connection: Any, _record: object) -> None:
    # asyncpg returns a subclass of UUID, which orjson cannot serialise.
    codec = {"schema": "pg_catalog", "encoder": attrgetter("bytes"), "decoder": _uuid, "format": "binary"}
    connection.run_async(lambda driver: driver.set_type_codec("uuid", **codec))


def _uuid(value: bytes) -> UUID:
    return UUID(bytes=bytes(value))


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Make the pool replace a connection that the server has closed. Unlike a ping, this costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _terminate(connection: Any, _record: object, _error: object) -> None:
    """Drop a broken connection without closing it properly, which would wait for a server that no longer answers."""
    connection.driver_connection.terminate()


def _is_retryable(error: DBAPIError | Retry) -> bool:
    """Return whether the unit left no trace and may succeed on fresh data or on another connection."""
    if isinstance(error, Retry) or error.connection_invalidated or _sqlstate(error) in _LOST_RACE:
        return True
    # The statement was prepared before the schema changed; asyncpg has now dropped it.
    return isinstance(_driver_error(error), asyncpg.InvalidCachedStatementError)


def _is_refusal(error: BaseException) -> bool:
    """Return whether the server refused a commit and kept the session, so that nothing was committed."""
    state = _sqlstate(error)
    return bool(state) and not state.startswith(_CUT_OFF)


def _translated(error: DBAPIError | Retry) -> Exception:
    """Return the port's error for a driver's error. Any other is a programming error and is returned as it is."""
    state = _sqlstate(error)
    if state == _DISK_FULL:
        return StorageFull()
    if state.startswith(_UNAVAILABLE) or isinstance(error, Retry) or error.connection_invalidated:
        log.warning("database.unavailable", reason=state or type(error).__name__)
        return DatabaseUnavailable()
    return error


def _startup_error(error: Exception, url: str) -> Exception:
    """Return the error for a failed start. Its one line names the URL without its password, and the reason."""
    cause = _driver_error(error)
    reason = " ".join(str(cause).split()) or "no answer"
    message = f"DATABASE_URL: {make_url(url).render_as_string()}: {reason}"
    wrong_tls = isinstance(cause, (ssl.SSLError, asyncpg.ClientConfigurationError)) or "rejected SSL" in reason
    if wrong_tls or _sqlstate(error).startswith(_MISCONFIGURED):
        return ConfigurationError(message)
    if isinstance(error, DBAPIError) and _translated(error) is error:
        return error
    return DatabaseUnavailable(message)


def _driver_error(error: Exception) -> BaseException:
    """Return the error that asyncpg itself raised."""
    return (error.orig and error.orig.__cause__) or error if isinstance(error, DBAPIError) else error


def _sqlstate(error: BaseException) -> str:
    """Return the server's SQLSTATE (five characters), or "" for an error that did not come from the server."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""
