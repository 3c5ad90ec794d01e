"""PostgreSQL: units of work on SQLAlchemy's asyncio engine over asyncpg.

A unit of `write` runs at REPEATABLE READ: all its statements see one snapshot, and where one of them meets a row that
another transaction has changed since, the whole unit is run again. So units behave as on SQLite, one after the other.
READ COMMITTED would not do: an upsert there overwrites what came between it and the check before it, such as the
record of an Idempotency-Key. SERIALIZABLE would also guard decisions on rows that are only read, at the price of more
units run again; but what a unit here must not miss is in a row that it writes, and the rest may as well come after it.
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
from app.database.base import Effect, Retry, T, Work, metadata, run_effects, running
from app.database.turns import Turns
from app.errors import ConfigurationError, DatabaseUnavailable, OutcomeUnknown, StorageFull

log = structlog.get_logger()

PATIENCE = 4.5  # seconds in which a unit that lost a race may be run again
POOL_PATIENCE = 1.5  # seconds that a unit waits for a connection when none is given back
CONNECT_PATIENCE = 1.5  # seconds
MIGRATION_PATIENCE = 25.0  # seconds that a starter waits for another to end its migration; less than uvicorn waits
RECYCLE = 1800  # seconds after which a connection is replaced: firewalls forget, and servers are added

_APPLICATION = "document-api"
_MIGRATING = 0x646F63756D656E74  # the key of the advisory lock: "document" in ASCII
_LOST_RACE = ("40001", "40P01")  # serialization failure, deadlock
_DISK_FULL = "53100"
# Classes and codes of errors that pass: connection, rollback, resources, the operator (a timeout, a shutdown), system;
# a read-only standby, a lock not had in time, a session that was idle for too long.
_UNAVAILABLE = ("08", "40", "53", "57", "58", "25006", "25P03", "55P03")
# Of errors that end the session, in whatever it was about.
_CUT_OFF = ("08", "57")
# Of errors that no waiting mends: a wrong role or password, no such database, no right to make tables there, a pooler
# that hands statements to sessions which never prepared them.
_MISCONFIGURED = ("28", "3D000", "42501", "26000", "42P05")
_UNCONNECTED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, PoolTimeoutError)


class PostgresqlDatabase:
    """Adapter of the Database port over a PostgreSQL server, 13 or newer."""

    def __init__(self, url: str, *, pool_size: int, statement_timeout: float) -> None:
        self._url = url
        self._engine = create_async_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_PATIENCE,
            pool_recycle=RECYCLE,
            hide_parameters=True,  # errors are logged; what users store is not
            connect_args=_connect_args(statement_timeout=statement_timeout, lock_timeout=PATIENCE),
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        event.listen(self._engine.sync_engine, "invalidate", _hang_up)
        # One statement, one round trip: what a unit reads is committed, though not of one moment.
        self._readers = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # The pool's own queue lets newcomers overtake those who wait; these do not. One place is for what is urgent.
        self._places = Turns(pool_size - 1, POOL_PATIENCE)
        self._urgent_place = Turns(1, POOL_PATIENCE)
        self._longest = PATIENCE + statement_timeout
        self._writing: set[asyncio.Task[Any]] = set()

    def migrate(self) -> None:
        asyncio.run(self._migrate())

    async def read(self, work: Work[T], *, brief: bool = False) -> T:
        return await self._insist(partial(self._read, work))

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        # Whoever is cancelled meanwhile, it is committed or rolled back, and its connection given back.
        unit = asyncio.create_task(self._write(work, self._urgent_place if urgent else self._places))
        self._writing.add(unit)
        unit.add_done_callback(self._writing.discard)
        return await asyncio.shield(unit)

    async def is_in_use(self) -> bool:
        await self._engine.dispose()
        sessions = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = :name AND pid <> pg_backend_pid()"
        )
        return await self.read(lambda conn: bool(conn.scalar(sessions, {"name": _APPLICATION})))

    async def check(self) -> None:
        # Locking a row is what a standby or a read-only server refuses.
        await self.write(lambda conn: conn.execute(text("SELECT version_num FROM alembic_version FOR UPDATE")))

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)
        await self._engine.dispose()

    async def _insist(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run a unit until it wins the race that it lost, or has a connection that lives as long as it does."""
        give_up_at = time.monotonic() + PATIENCE
        try:
            # A server that has fallen silent enforces no timeout of its own.
            async with asyncio.timeout(self._longest):
                while True:
                    try:
                        return await run()
                    except (DBAPIError, Retry) as error:
                        if not _to_be_run_again(error) or time.monotonic() > give_up_at:
                            raise _translated(error) from error
        except TimeoutError:
            log.warning("database.unavailable", reason="silent")
            raise DatabaseUnavailable from None

    async def _read(self, work: Work[T]) -> T:
        async with _place(self._places), _connected(self._readers) as conn:
            return await conn.run_sync(work)

    async def _write(self, work: Work[T], places: Turns) -> T:
        outcome, effects = await self._insist(partial(self._commit, work, places))
        run_effects(effects)
        return outcome

    async def _commit(self, work: Work[T], places: Turns) -> tuple[T, list[Effect]]:
        async with _place(places), _connected(self._engine) as conn:
            outcome, effects = await conn.run_sync(running, work)
            try:
                await conn.commit()
            except (DBAPIError, asyncio.CancelledError) as error:
                if _is_refusal(error):
                    raise
                log.warning("database.unconfirmed", reason=_sqlstate(error) or type(error).__name__)
                raise OutcomeUnknown from error
            return outcome, effects

    async def _migrate(self) -> None:
        settings = _connect_args(statement_timeout=0, lock_timeout=MIGRATION_PATIENCE)
        engine = create_async_engine(self._url, poolclass=NullPool, connect_args=settings)
        try:
            async with engine.connect() as conn:
                if (encoding := await conn.scalar(text("SHOW server_encoding"))) != "UTF8":
                    raise ConfigurationError(f"DATABASE_URL: the database's encoding is {encoding}, and must be UTF8")
                await conn.commit()
                if await conn.run_sync(migrations.is_current):
                    return  # and left no lock to the next user of a session that a proxy shares
                await _lock_migration(conn)
                await conn.run_sync(migrations.upgrade, metadata)
        except _UNCONNECTED as error:
            raise _told_to_operator(error, self._url) from error
        finally:
            await engine.dispose()


async def _lock_migration(conn: AsyncConnection) -> None:
    """Keep other starters out for as long as the session lasts. Raises DatabaseUnavailable.

    Not by waiting for the lock: a waiting statement has a snapshot, which an index that is built concurrently waits for.
    """
    give_up_at = time.monotonic() + MIGRATION_PATIENCE
    while not await conn.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATING}):
        await conn.commit()
        if time.monotonic() > give_up_at:
            raise DatabaseUnavailable("DATABASE_URL: another process is migrating the database")
        await asyncio.sleep(0.1)
    await conn.commit()


def _connect_args(*, statement_timeout: float, lock_timeout: float) -> dict[str, Any]:
    """For asyncpg. Timeouts are seconds, and the server's to enforce; 0 is none."""
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        # Of a process that was frozen within a transaction: its locks must not stop the others.
        "idle_in_transaction_session_timeout": PATIENCE,
    }
    settings = {name: f"{seconds * 1000:.0f}" for name, seconds in timeouts.items()}
    return {"timeout": CONNECT_PATIENCE, "server_settings": {"application_name": _APPLICATION, **settings}}


@asynccontextmanager
async def _place(places: Turns) -> AsyncIterator[None]:
    """The right to a connection of the pool. Raises DatabaseUnavailable when nobody gives one back."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(places.one())
        except TimeoutError:
            log.warning("database.unavailable", reason="pool")
            raise DatabaseUnavailable from None
        yield


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection; what was begun on it and not committed is rolled back. Raises DatabaseUnavailable."""
    async with AsyncExitStack() as stack:
        try:
            conn = await stack.enter_async_context(engine.connect())
        except _UNCONNECTED as error:
            log.warning("database.unavailable", reason=_sqlstate(error) or type(error).__name__)
            raise DatabaseUnavailable from error
        yield conn


def _prepare(connection: Any, _record: object) -> None:
    # asyncpg's own UUID is a subclass, which orjson does not know.
    codec = {"schema": "pg_catalog", "encoder": attrgetter("bytes"), "decoder": _uuid, "format": "binary"}
    connection.run_async(lambda driver: driver.set_type_codec("uuid", **codec))


def _uuid(value: bytes) -> UUID:
    return UUID(bytes=bytes(value))


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection that the server has closed meanwhile. Costs no round trip, as a ping would."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _hang_up(connection: Any, _record: object, _error: object) -> None:
    """End a connection that broke off or was given up at once: a farewell would wait for a server fallen silent."""
    connection.driver_connection.terminate()


def _to_be_run_again(error: DBAPIError | Retry) -> bool:
    """Whether the unit has left no trace, and may well succeed on fresh data or another connection."""
    if isinstance(error, Retry) or error.connection_invalidated or _sqlstate(error) in _LOST_RACE:
        return True
    # A statement that was prepared before the schema changed, and is now forgotten.
    return isinstance(_driver_error(error), asyncpg.InvalidCachedStatementError)


def _is_refusal(error: BaseException) -> bool:
    """Whether the server has answered, and gone on: what it was asked for has not happened."""
    state = _sqlstate(error)
    return bool(state) and not state.startswith(_CUT_OFF)


def _translated(error: DBAPIError | Retry) -> Exception:
    """A driver's error as this project's; a statement that can never succeed stays the programming error that it is."""
    state = _sqlstate(error)
    if state == _DISK_FULL:
        return StorageFull()
    if state.startswith(_UNAVAILABLE) or isinstance(error, Retry) or error.connection_invalidated:
        log.warning("database.unavailable", reason=state or type(error).__name__)
        return DatabaseUnavailable()
    return error


def _told_to_operator(error: Exception, url: str) -> Exception:
    """What kept this process from the database at its start, in one line that names the place without its password."""
    cause = _driver_error(error)
    reason = " ".join(str(cause).split()) or "no answer"
    told = f"DATABASE_URL: {make_url(url).render_as_string()}: {reason}"
    wrong_tls = isinstance(cause, (ssl.SSLError, asyncpg.ClientConfigurationError)) or "rejected SSL" in reason
    if wrong_tls or _sqlstate(error).startswith(_MISCONFIGURED):
        return ConfigurationError(told)
    if isinstance(error, DBAPIError) and _translated(error) is error:
        return error
    return DatabaseUnavailable(told)


def _driver_error(error: Exception) -> BaseException:
    """What asyncpg itself raised."""
    return (error.orig and error.orig.__cause__) or error if isinstance(error, DBAPIError) else error


def _sqlstate(error: BaseException) -> str:
    """The server's five characters; empty for an error that is not the server's."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""
