"""What services know of the database, whichever engine it is.

A transaction is a plain function over a Connection: nothing but the database can be waited for inside it, it is whole
when `write` returns, and it may be run again, so it has no effect outside the database but through `after_commit`.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    MetaData,
    String,
    Table,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.database.prepared import Prepared

log = structlog.get_logger()

T = TypeVar("T")
Work = Callable[[Connection], T]
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
    """Raised by a unit of work that lost a race it can win on fresh data: roll back and run it again."""


class Database(Protocol):
    """Obligations of an adapter: `write` returns after the commit is durable; an exception from either call means that
    the unit left no trace, but for OutcomeUnknown: it is committed or not, whole. A database that is locked or away
    raises DatabaseUnavailable within seconds, a full one StorageFull."""

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Blocks; processes that start at once take turns.

        Raises ConfigurationError for what only another setting can mend.
        """

    async def read(self, work: Work[T], *, brief: bool = False) -> T:
        """Run a unit that only reads, on committed data. `brief` is what finds a few small rows by an index: it need
        not leave the event loop for that."""

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        """Run a unit in a transaction; then, in the caller's context, what it left with `after_commit`.

        `urgent` is what a lease hangs on: it does not queue behind requests.
        """

    async def is_in_use(self) -> bool:
        """Whether any other process is connected, as far as can be seen. Our own connections are let go of first: no
        other call may be under way."""

    async def check(self) -> None:
        """Raise DatabaseUnavailable or StorageFull unless something can be committed now."""

    async def close(self) -> None:
        """Finish the units already accepted, then let go of every connection."""


def after_commit(conn: Connection, effect: Effect) -> None:
    """Run `effect` once if and when the current unit of work is durable; never for one that was rolled back."""
    conn.info.setdefault("after_commit", []).append(effect)


def running(conn: Connection, work: Work[T]) -> tuple[T, list[Effect]]:
    """For adapters: run a unit, and return what came of it and what it left with `after_commit`."""
    effects: list[Effect] = []
    conn.info["after_commit"] = effects  # `info` is the pooled connection's: an earlier unit may have left its own
    return work(conn), effects


def run_effects(effects: Iterable[Effect]) -> None:
    """For adapters: the unit is durable, so none of its effects may fail it, nor keep the others from being run."""
    for effect in effects:
        try:
            effect()
        except Exception:
            log.exception("database.effect_failed")


_INSERT: dict[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_unless(conn: Connection, table: Table) -> Any:
    """INSERT with the `on_conflict_…` clauses that SQLite and PostgreSQL share and SQLAlchemy's core lacks."""
    return _INSERT[conn.dialect.name](table)


def insert_or_replace(table: Table, **values: Any) -> Mapping[str, Prepared]:
    """By the dialect's name: INSERT of `values` and parameters in the place of any row with the same primary key."""
    statements = {}
    for dialect, insert in _INSERT.items():
        row = insert(table).values(**values)
        rest = {column.name: row.excluded[column.name] for column in table.c if not column.primary_key}
        statements[dialect] = Prepared(row.on_conflict_do_update(index_elements=table.primary_key, set_=rest))
    return statements


def number_on(conn: Connection, table: Table) -> None:
    """Have the next row that is numbered follow those that were inserted with numbers of their own, as on SQLite."""
    column = table.autoincrement_column
    if column is not None and conn.dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        conn.execute(select(func.setval(sequence, func.max(column))))


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def binary_text(length: int) -> String:
    """Text that is sorted by code point, as SQLite does, whatever the locale of the database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock, `seconds` (or a parameter that gives them) from now: leases and expiries must not depend on
    which host asks."""

    type = UTCDateTime()
    inherit_cache = True
    name = "now"

    def __init__(self, seconds: float | BindParameter[float] = 0) -> None:
        super().__init__(seconds)


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not now(), which is when the transaction began, nor clock_timestamp(), which no index can be searched by.
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    # The layout in which SQLAlchemy stores a DateTime, so that text compares as time does.
    offset = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%.3f seconds', {offset}))"


class any_case(FunctionElement[str]):  # noqa: N801 - as `now`
    """A text that is to be searched in any case, so that É is é, whatever the locale of the database."""

    type = String()
    inherit_cache = True
    name = "any_case"


@compiles(any_case)
def _any_case(element: any_case, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(any_case, "postgresql")
def _postgresql_any_case(element: any_case, compiler: SQLCompiler, **kw: Any) -> str:
    return f'({compiler.process(element.clauses, **kw)} COLLATE "und-x-icu")'


class unindexed(FunctionElement[Any]):  # noqa: N801 - as `now`
    """A column that SQLite shall not look up in an index. PostgreSQL knows by its statistics which index to use."""

    inherit_cache = True
    name = "unindexed"

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unindexed)
def _unindexed(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(unindexed, "sqlite")
def _sqlite_unindexed(element: unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    return f"+{compiler.process(element.clauses, **kw)}"


class usual(FunctionElement[Any]):  # noqa: N801 - as `now`
    """A condition that SQLite shall take to hold for most rows: it then prefers a partial index of just those rows,
    sorted by another column, to an index of the column that the condition is about."""

    inherit_cache = True
    name = "usual"

    def __init__(self, condition: ColumnElement[bool]) -> None:
        super().__init__(condition)


@compiles(usual)
def _usual(element: usual, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(usual, "sqlite")
def _sqlite_usual(element: usual, compiler: SQLCompiler, **kw: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **kw)}, 0.99)"
