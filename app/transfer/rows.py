"""Every table, row by row, and the proof that the copy is one.

Tables are those of the metadata, parents first. Rows go in batches along the primary key, each batch one unit.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, func, literal, select, tuple_

from app.database import Database, insert_on_conflict, metadata, reset_sequence
from app.telemetry import faults
from app.transfer.errors import TransferError
from app.transfer.progress import Progress

BATCH = 200  # rows; some hold the text of a whole document

Row = dict[str, Any]
State = dict[str, tuple[int, int | None]]


async def copy(source: Database, target: Database, tell: Callable[[str], None]) -> None:
    """Have the target hold the rows of the source and no others. Raises TransferError."""
    for table in metadata.sorted_tables:
        if strange := await _missing(target, source, table):
            raise TransferError(
                f"the target holds {strange} row(s) of {table.name} that the source has not, or has otherwise: "
                "it is another service's, or one of the two has served meanwhile. Transfer into an empty database"
            )
    progress = Progress(tell)
    for table in metadata.sorted_tables:
        count = 0
        async for batch in _batches(source, table):
            await target.write(partial(_insert, table=table, rows=batch))
            faults.hit("transfer.after_batch")
            count += len(batch)
            progress.at(f"{table.name}: {count} rows so far")
        tell(f"{table.name}: {count} rows")
    await _verify(source, target)
    tell("rows: every one compared with the source's")


def state(conn: Connection) -> State:
    """Of each table the number of rows and, if it numbers them, the last one: whatever users do is an event, too."""
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
    """How many rows of `these` are not in `those`, or not the same."""
    missing = 0
    async for batch in _batches(these, table):
        others = await those.read(partial(_same_keys, table=table, rows=batch))
        missing += sum(others.get(_key(table, row)) != row for row in batch)
    return missing


async def _batches(db: Database, table: Table) -> AsyncIterator[list[Row]]:
    """The rows of a table along its primary key, in the order of that database, whatever its collation."""
    after: tuple[Any, ...] | None = None
    while batch := await db.read(partial(_page, table=table, after=after)):
        yield batch
        after = _key(table, batch[-1])


def _page(conn: Connection, table: Table, after: tuple[Any, ...] | None) -> list[Row]:
    columns = table.primary_key.columns
    query = select(table).order_by(*columns).limit(BATCH)
    if after is not None:
        query = query.where(tuple_(*columns) > tuple_(*map(literal, after, [column.type for column in columns])))
    return [dict(row) for row in conn.execute(query).mappings()]


def _same_keys(conn: Connection, table: Table, rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
    query = select(table).where(tuple_(*table.primary_key.columns).in_([_key(table, row) for row in rows]))
    return {_key(table, row): dict(row) for row in conn.execute(query).mappings()}


def _insert(conn: Connection, table: Table, rows: Sequence[Row]) -> None:
    conn.execute(insert_on_conflict(conn, table).on_conflict_do_nothing(), rows)
    reset_sequence(conn, table)


def _key(table: Table, row: Any) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key.columns)


def _count(conn: Connection, table: Table) -> int:
    return conn.execute(select(func.count()).select_from(table)).scalar_one()
