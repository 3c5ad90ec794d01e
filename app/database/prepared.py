"""Statements of the hot paths, compiled once. How they are run on SQLite is all that SQLAlchemy is left out of."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Dialect, Select, UpdateBase
from sqlalchemy.exc import DBAPIError

Convert = Callable[[Any], Any]
Row = dict[str, Any]
Values = Mapping[str, Any]
Statement = Select[Any] | UpdateBase


class _Ready(NamedTuple):
    """What the driver takes, and how to read what it gives: the columns by name."""

    sql: str
    slots: list[Callable[[Values], Any]]
    columns: list[tuple[str, Convert]]

    def parameters(self, values: Values) -> list[Any]:
        return [slot(values) for slot in self.slots]

    def row(self, found: Sequence[Any]) -> Row:
        return {name: convert(value) for (name, convert), value in zip(self.columns, found, strict=True)}


class Prepared:
    """A statement that is given its values as parameters.

    To build a statement costs five times as much as to run it by SQLAlchemy; and that, 37 µs to read a document, is
    16 µs by the driver of SQLite: 1.3x the jobs a second.
    """

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._ready: dict[tuple[Any, ...], _Ready] = {}

    def all(self, conn: Connection, values: Values) -> list[Row]:
        """The rows that are found, or returned, each by column name."""
        if conn.dialect.driver != "pysqlite":
            return [dict(row) for row in conn.execute(self._statement, values).mappings()]
        ready = self._made_ready(conn.dialect, values)
        return [ready.row(row) for row in execute(conn, ready.sql, ready.parameters(values)).fetchall()]

    def one(self, conn: Connection, values: Values) -> Row | None:
        """The row that is found, or returned, by column name. None: there is none."""
        if conn.dialect.driver != "pysqlite":
            found = conn.execute(self._statement, values).mappings().one_or_none()
            return dict(found) if found is not None else None
        ready = self._made_ready(conn.dialect, values)
        rows = execute(conn, ready.sql, ready.parameters(values)).fetchall()
        return ready.row(*rows) if rows else None

    def count(self, conn: Connection, values: Values) -> int:
        """How many rows were changed."""
        if conn.dialect.driver != "pysqlite":
            return conn.execute(self._statement, values).rowcount
        ready = self._made_ready(conn.dialect, values)
        return execute(conn, ready.sql, ready.parameters(values)).rowcount

    def _made_ready(self, dialect: Dialect, values: Values) -> _Ready:
        key = (dialect, *values)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = _compiled(self._statement, dialect, tuple(values))
        return ready


def execute(conn: Connection, sql: str, parameters: list[Any]) -> sqlite3.Cursor:
    """Raises DBAPIError, as SQLAlchemy does."""
    driver: Any = conn.connection.dbapi_connection
    try:
        cursor: sqlite3.Cursor = driver.execute(sql, parameters)
    except sqlite3.Error as error:
        raise DBAPIError.instance(sql, parameters, error, sqlite3.Error, hide_parameters=True) from error
    return cursor


def _compiled(statement: Statement, dialect: Dialect, names: tuple[str, ...]) -> _Ready:
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    slots = [_slot(compiled.binds[name], dialect, given=name in names) for name in compiled.positiontup or ()]
    columns: list[tuple[str, Convert]] = [
        (str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None) or _as_it_is)
        for column in statement.exported_columns
    ]
    return _Ready(str(compiled), slots, columns)


def _slot(parameter: BindParameter[Any], dialect: Dialect, *, given: bool) -> Callable[[Values], Any]:
    """What a place in the statement is filled with: a value of the caller's, or one that the statement brings along."""
    name, convert = parameter.key, parameter.type.dialect_impl(dialect).bind_processor(dialect) or _as_it_is
    return lambda values: convert(values[name] if given else parameter.effective_value)


def _as_it_is(value: Any) -> Any:
    return value
