"""Copies every table row by row, then compares the copy with the source.

The tables are those of the metadata, parents before children. Rows are copied in batches in the order of the primary
key, each batch in a transaction of its own.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, func, literal, select, tuple_

from app.database import Database, insert_on_conflict, metadata, reset_sequence
from app.telemetry import faults
from app.transfer.errors import TransferError
from app.transfer.progress import Progress

BATCH = 200  # rows; a result may hold the text of a whole document

Row = dict[str, Any]
Fingerprint = dict[str, tuple[int, int | None]]  # by table: rows, and the highest number where it has numbers


async def copy(source: Database, target: Database, report: Callable[[str], None]) -> None:
    """Copy all rows, so that the target holds the source's rows and no others. Raises TransferError.

    `report` gets one line of text at a time, for the operator.
    """
    for table in metadata.sorted_tables:
        if foreign := await _missing(target, source, table):
            raise TransferError(
                f"the target holds {foreign} row(s) of {table.name} that the source has not, or has otherwise: "
                "it is another service's, or one of the two has served meanwhile. Transfer into an empty database"
            )
    progress = Progress(report)
    for table in metadata.sorted_tables:
        count = 0
        async for batch in _batches(source, table):
            await target.write(partial(_insert, table=table, rows=batch))
            faults.hit("transfer.after_batch")
            count += len(batch)
            progress.at(f"{table.name}: {count} rows so far")
        report(f"{table.name}: {count} rows")
    await _verify(source, target)
    report("rows: every one compared with the source's")


def fingerprint(conn: Connection) -> Fingerprint:
    """Return the row count and highest autoincrement value of each table.

    Every change by a user appends an event, so any write alters it.
    """
    return {
        table.name: (
            _count(conn, table),
            conn.scalar(select(func.max(table.autoincrement_column)))
            if table.autoincrement_column is not None
            else None,
        )
        for table in metadata.sorted_tables
    }


async def _verify(source: Database, target: Database) -> None:
    for table in metadata.sorted_tables:
        missing = await _missing(source, target, table)
        counts = [await db.read(partial(_count, table=table)) for db in (source, target)]
        if missing or counts[0] != counts[1]:
            raise TransferError(
                f"{table.name}: {counts[1]} rows were copied of {counts[0]}, {missing} of them are missing or differ: "
                "the source or the target was written to meanwhile. Stop what uses them, and begin anew"
            )


async def _missing(these: Database, those: Database, table: Table) -> int:
    """Return how many rows of `these` are missing in `those`, or differ there."""
    missing = 0
    async for batch in _batches(these, table):
        others = await those.read(partial(_same_keys, table=table, rows=batch))
        missing += sum(others.get(_key(table, row)) != row for row in batch)
    return missing


async def _batches(db: Database, table: Table) -> AsyncIterator[list[Row]]:
    """Yield the rows of a table in batches, sorted by its primary key with the database's own collation."""
    after: tuple[Any, ...] | None = None
    while batch := await db.read(partial(_page, table=table, after=after)):
        yield batch
        after = _key(table, batch[-1])


def _page(conn: Connection, table: Table, after: tuple[Any, ...] | None) -> list[Row]:
    columns = table.primary_key.columns
    query = select(table).order_by(*columns).limit(BATCH)
    if after is not None:
        end = [literal(value, column.type) for value, column in zip(after, columns, strict=True)]
        query = query.where(tuple_(*columns) > tuple_(*end))
    return [dict(row) for row in conn.execute(query).mappings()]


def _same_keys(conn: Connection, table: Table, rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    query = select(table).where(tuple_(*table.primary_key.columns).in_([_key(table, row) for row in rows]))
    return {_key(table, row): dict(row) for row in conn.execute(query).mappings()}


def _insert(conn: Connection, table: Table, rows: Sequence[Row]) -> None:
    conn.execute(insert_on_conflict(table).on_conflict_do_nothing(), rows)
    reset_sequence(conn, table)


def _key(table: Table, row: Any) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key.columns)


def _count(conn: Connection, table: Table) -> int:
    return conn.execute(select(func.count()).select_from(table)).scalar_one()
