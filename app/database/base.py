"""The database port, and the SQL that both engines share.

A unit of work is a plain function over a Connection, which runs as one transaction. It can wait for nothing but the
database, it is committed whole when `write` returns, and it may be run more than once: effects outside the database
therefore go through `after_commit`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Float,
    MetaData,
    String,
    Table,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.database.statements import Prepared
from app.errors import DatabaseUnavailable
from app.telemetry import metrics

log = structlog.get_logger()

SEARCHES = 2  # at once in one process
SEARCH_TIMEOUT = 2.0  # seconds that a search may take
SEARCH_WAIT = 10.0  # seconds that a search waits while its owner is granted none
NARROW_IT = f"The search took {SEARCH_TIMEOUT:.0f} s. Narrow it by a folder, a tag, a status, a time or a longer `q`."

T = TypeVar("T")
Unit = Callable[[Connection], T]
Effect = Callable[[], None]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Retry(Exception):
    """A unit of work raises this when it lost a race that it can win on fresh data: it is rolled back and run again."""


class Database(Protocol):
    """What services need from a database. Adapters run units of work and translate the driver's errors.

    `write` returns after the commit is durable. Any exception from `read` or `write` means that the unit left no trace,
    except for OutcomeUnknown, after which it was committed completely or not at all. A database that is locked or
    unreachable raises DatabaseUnavailable within seconds, a full disk raises StorageFull.
    """

    listeners: list[Any]
    """What `events.append` calls for each event. Units find this list in the execution options of their connection."""

    audit_keys: list[bytes]
    """What `events.append` signs each event with: the first of these. Units find them where the listeners are."""

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Blocks; processes that start at the same time run one by one.

        Raises DatabaseUnavailable, StorageFull, and ConfigurationError for what only another setting can fix.
        """

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that only reads, on committed data. Raises DatabaseUnavailable, and what the unit raises."""

    async def search(self, unit: Unit[T]) -> T:
        """Run a unit that only reads, but perhaps all that there is. No other read ever waits for it.

        At most SEARCHES run at once, and one of each owner. Raises SearchTooBroad after SEARCH_TIMEOUT, TooBusy, and
        what `read` raises.
        """

    async def write(self, unit: Unit[T], *, urgent: bool = False, alone_with: UUID | None = None) -> T:
        """Run a unit in a transaction, then its `after_commit` effects in the caller's context.

        `urgent` is for what a lease depends on: it does not queue behind the units that are not. Units that are
        `alone_with` the same, such as an account, run one after the other in all processes, and each sees what those
        before it have committed. Raises TooBusy if those take too long, DatabaseUnavailable, StorageFull,
        OutcomeUnknown, and what the unit raises.
        """

    async def check(self) -> None:
        """Raise DatabaseUnavailable or StorageFull unless the database takes writes, as far as it tells at once."""

    async def close(self) -> None:
        """Finish the units already accepted, then close every connection."""


def unavailable(reason: str) -> DatabaseUnavailable:
    """For adapters: log and count that the database cannot be used, and return the error to raise.

    `reason` is one of few: the server's or driver's name for the error, or what was waited for.
    """
    log.warning("database.unavailable", reason=reason)
    metrics.database_unavailable.labels(reason).inc()
    return DatabaseUnavailable()


def after_commit(conn: Connection, effect: Effect) -> None:
    """Run `effect` once, as soon as the current unit of work is durable; never if it is rolled back."""
    conn.info.setdefault("after_commit", []).append(effect)


def run_unit(conn: Connection, unit: Unit[T]) -> tuple[T, list[Effect]]:
    """For adapters: run a unit and return its outcome and its `after_commit` effects."""
    effects: list[Effect] = []
    conn.info["after_commit"] = effects  # `info` is the pooled connection's: an earlier unit may have left effects
    return unit(conn), effects


def run_effects(effects: Iterable[Effect]) -> None:
    """For adapters: run the effects of a durable unit. One that raises is logged and does not stop the others."""
    for effect in effects:
        try:
            effect()
        except Exception:
            log.exception("database.effect_failed")


_INSERT: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_on_conflict(conn: Connection, table: Table) -> Any:
    """Return an INSERT with the `on_conflict_…` clauses, which both engines have and SQLAlchemy's core lacks."""
    return _INSERT[conn.dialect.name](table)


def insert_or_replace(
    table: Table, *, only_if: ColumnElement[bool] | None = None, **values: Any
) -> Mapping[str, Prepared]:
    """Return, by the dialect's name, an INSERT that replaces the row with the same primary key; `only_if` that is so of
    the row, otherwise it changes nothing.

    `values` are part of the statement; the other columns are its parameters.
    """
    statements = {}
    for dialect, insert in _INSERT.items():
        row = insert(table).values(**values)
        rest = {column.name: row.excluded[column.name] for column in table.c if not column.primary_key}
        statements[dialect] = Prepared(
            row.on_conflict_do_update(index_elements=table.primary_key, set_=rest, where=only_if)
        )
    return statements


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, on engines with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value and value.tzinfo is not UTC else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def binary_text(length: int) -> String:
    """Return a text type that is sorted by code point on both engines, whatever the locale of the database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class _ByEngine(FunctionElement[Any]):
    """A function that each engine spells in its own way: by a template, in which {0} and {1} are the arguments."""

    inherit_cache = True
    postgresql = sqlite = "{0}"


@compiles(_ByEngine)
def _compile(element: _ByEngine, compiler: SQLCompiler, **kw: Any) -> str:
    template: str = getattr(element, compiler.dialect.name)
    return template.format(*(compiler.process(argument, **kw) for argument in element.clauses))


class now(_ByEngine):  # noqa: N801 - reads as the SQL function that it is
    """The time by the database's clock, plus `seconds` (a number or a parameter).

    Leases and expiries must not depend on the clock of the host that asks.
    """

    type = UTCDateTime()
    inherit_cache = True
    # now() is when the transaction began; clock_timestamp() is volatile, so no index can be searched by it.
    postgresql = "(statement_timestamp() + make_interval(secs => {0}))"
    # SQLAlchemy stores a DateTime as text in this layout, so that comparing the text compares the times.
    sqlite = "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {0}))"

    def __init__(self, seconds: float | ColumnElement[float] = 0) -> None:
        super().__init__(seconds)


CLOCK = "clock"
"""In the `info` of a connection: by how many seconds the database's clock is ahead of `time.monotonic`."""


def time_of(conn: Connection) -> datetime:
    """The time by the database's clock, in whole milliseconds, for what must be known before it is stored.

    It costs no round trip: the clock of another host was asked when the session began.
    """
    return datetime.fromtimestamp(int(_seconds(conn) * 1000) / 1000, UTC)


def made_at(uuid7: UUID) -> datetime:
    """When an id was made: a UUIDv7 begins with the milliseconds since 1970 (RFC 9562 §5.7)."""
    return datetime.fromtimestamp((uuid7.int >> 80) / 1000, UTC)


def _seconds(conn: Connection) -> float:
    ahead: float | None = conn.info.get(CLOCK)
    return time.time() if ahead is None else time.monotonic() + ahead


class as_json(_ByEngine):  # noqa: N801 - as `now`
    """Text that is JSON, as a value for a JSON column, which keeps it to the letter."""

    type = JSON()
    inherit_cache = True
    postgresql = "CAST({0} AS JSON)"


class json_text(_ByEngine):  # noqa: N801 - as `now`
    """A JSON column as the text that it keeps, not decoded."""

    type = String()
    inherit_cache = True
    postgresql = "CAST({0} AS TEXT)"


class unix_time(_ByEngine):  # noqa: N801 - as `now`
    """A moment in seconds since 1970."""

    type = Float()
    inherit_cache = True
    postgresql = "extract(epoch FROM {0})"
    sqlite = "((julianday({0}) - 2440587.5) * 86400.0)"


class case_insensitive(_ByEngine):  # noqa: N801 - as `now`
    """A text to be searched without regard to case, so that É matches é, whatever the locale of the database."""

    type = String()
    inherit_cache = True
    postgresql = '({0} COLLATE "und-x-icu")'


class without_index(_ByEngine):  # noqa: N801 - as `now`
    """A column that SQLite must not look up in an index. PostgreSQL chooses its indexes by statistics instead."""

    inherit_cache = True
    sqlite = "+{0}"

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


class usual(_ByEngine):  # noqa: N801 - as `now`
    """A condition that SQLite shall take to hold for most rows: it then prefers a partial index of just those rows,
    sorted by another column, to an index of the column that the condition is about."""

    inherit_cache = True
    sqlite = "likelihood({0}, 0.99)"
