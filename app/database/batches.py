"""Changing many rows, a batch a transaction."""

from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, delete, literal_column, select

from app.database.base import Database, now

# Rows. They take some 10 ms: a small part of a statement's timeout, and of the time that SQLite's lock is held.
BATCH = 2000

_ROW_ADDRESS = {"postgresql": "ctid", "sqlite": "rowid"}


def in_batch(
    conn: Connection, table: Table, *due: ColumnElement[bool], oldest: Column[Any] | None = None, limit: int = BATCH
) -> ColumnElement[bool]:
    """Return the condition that is true for up to `limit` rows that are `due`, in the order of the column `oldest`.

    Rows that others have locked are passed over, and the others are locked.
    """
    # By address a row is found in one step, whatever the planner thinks of the table: 3 to 8 times as fast as by key.
    address: ColumnElement[Any] = literal_column(f"{table.name}.{_ROW_ADDRESS[conn.dialect.name]}")
    chosen = select(address.label("address")).where(*due).order_by(oldest).limit(limit)
    # Materialized: PostgreSQL may run `IN (SELECT … LIMIT …)` once for each row of the table, with statistics of a
    # time with few due rows. Then there is no limit, and the cost is quadratic.
    batch = chosen.with_for_update(of=table, skip_locked=True).cte("batch").prefix_with("MATERIALIZED")
    return address.in_(select(batch.c.address))


def delete_batch(
    conn: Connection,
    table: Table,
    *due: ColumnElement[bool],
    oldest: Column[Any] | None,
    returning: tuple[Column[Any], ...] = (),
    limit: int = BATCH,
) -> list[Row[Any]]:
    """Delete a batch as of `in_batch`, and return `returning` of each row; by default their `oldest`, which must be one
    of the table's own columns then.

    Nothing is returned when nothing was left to delete.
    """
    batch = in_batch(conn, table, *due, oldest=oldest, limit=limit)
    return list(conn.execute(delete(table).where(batch).returning(*(returning or (oldest,)))))


async def delete_expired(db: Database, moment: Column[datetime], *, kept: float = 0.0) -> None:
    """Delete the rows of the column's table whose `moment` was at least `kept` seconds ago, however many."""
    since = None
    while gone := await db.write(partial(_delete_expired, moment=moment, kept=kept, since=since)):
        since = max(row[0] for row in gone)


def _delete_expired(conn: Connection, moment: Column[datetime], kept: float, since: datetime | None) -> list[Row[Any]]:
    """Rows that expired at `since` or later. Earlier ones are gone, but an index that other transactions still need as
    it was would be read through from its beginning for each batch."""
    due = [moment <= now(-kept)] + ([moment >= since] if since else [])
    return delete_batch(conn, moment.table, *due, oldest=moment)
