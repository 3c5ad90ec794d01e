"""The sessions of a PostgreSQL server: how they are set up, and when they are replaced.

Errors end most sessions, and a pool replaces those by itself. After a switchover the address leads to another server,
but a session with the old one may stay open for as long as that serves as a standby. One such error makes all sessions
that were begun before it useless.
"""

import time
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.database.base import CLOCK

LOCK_TIMEOUT = 4.5  # seconds that a statement waits for a lock
IDLE_TIMEOUT = 4.5  # seconds until the server ends an idle transaction: a frozen process must not keep its locks
POOL_TIMEOUT = 1.5  # seconds that a unit waits while its owner is granted no connection
CONNECT_TIMEOUT = 1.5  # seconds
RECYCLE_SECONDS = 1800  # age at which a connection is replaced: firewalls forget idle ones, and servers are added

_APPLICATION = "document-api"
# Classes and codes of errors after which a session is of no use: connection, a standby or a server that only reads, an
# idle session that was ended, a shutdown.
_USELESS = ("08", "25006", "25P03", "57P")


class Sessions:
    """Makes the engines of one process. Their sessions are replaced together."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._replace_before = 0.0

    def replace(self) -> None:
        """Have every session that has begun by now replaced before it is used again."""
        self._replace_before = time.monotonic()

    def pool(self, size: int, statement_timeout: float, **settings: str) -> AsyncEngine:
        """Return an engine with up to `size` sessions, which have these settings of the server."""
        arguments = connect_args(self._url, statement_timeout=statement_timeout, lock_timeout=LOCK_TIMEOUT)
        arguments["server_settings"] |= settings
        engine = create_async_engine(
            self._url,
            isolation_level="REPEATABLE READ",
            pool_size=size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_recycle=RECYCLE_SECONDS,
            hide_parameters=True,  # errors are logged, and what users store must not be
            connect_args=arguments,
        )
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "checkout", self._refuse_useless)
        event.listen(engine.sync_engine, "handle_error", self._notice)
        event.listen(engine.sync_engine, "invalidate", _terminate)
        return engine

    def _refuse_useless(self, connection: Any, record: Any, _proxy: object) -> None:
        """Make the pool replace a session that was closed, or shall be. Unlike a ping, this costs no round trip."""
        if connection.driver_connection.is_closed() or record.info["begun_at"] <= self._replace_before:
            raise DisconnectionError

    def _notice(self, failure: ExceptionContext) -> None:
        if sqlstate(failure.original_exception).startswith(_USELESS):
            self.replace()


def connect_args(url: str, *, statement_timeout: float, lock_timeout: float) -> dict[str, Any]:
    """Return asyncpg's arguments. The timeouts, in seconds, are enforced by the server; 0 means none."""
    timeouts = {
        "statement_timeout": statement_timeout,
        "lock_timeout": lock_timeout,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
    }
    settings = {name: f"{seconds * 1000:.0f}" for name, seconds in timeouts.items()}
    arguments = {"timeout": CONNECT_TIMEOUT, "server_settings": {"application_name": _APPLICATION, **settings}}
    if isinstance(make_url(url).query.get("host"), tuple):  # of several servers, the one that can be written to
        arguments["target_session_attrs"] = "read-write"
    return arguments


def sqlstate(error: BaseException) -> str:
    """Return the server's SQLSTATE (five characters), or "" for an error that did not come from the server."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def _prepare(connection: Any, record: Any) -> None:
    # asyncpg returns a subclass of UUID, which orjson cannot serialise.
    codec = {"schema": "pg_catalog", "encoder": attrgetter("bytes"), "decoder": _uuid, "format": "binary"}
    connection.run_async(lambda driver: driver.set_type_codec("uuid", **codec))
    asked_at = time.monotonic()
    clock = connection.run_async(lambda driver: driver.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
    record.info["begun_at"] = time.monotonic()
    record.info[CLOCK] = clock - (asked_at + record.info["begun_at"]) / 2


def _uuid(value: bytes) -> UUID:
    return UUID(bytes=bytes(value))


def _terminate(connection: Any, _record: object, _error: object) -> None:
    """Drop a session without closing it properly, which would wait for a server that no longer answers."""
    connection.driver_connection.terminate()
