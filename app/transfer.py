"""Moves a stopped service: copies its rows into another database and its files into another storage.

A transfer keeps no record of its progress. What the target already holds must equal the source's and is not copied
again, so a transfer that was killed is simply started again. Rows are copied first, because a file without a row would
be an orphan, and compared last: a process that wrote during the transfer is detected by what it wrote.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import JSON, Connection, Select, String, Table, bindparam, func, literal, select, tuple_

from app import migrations
from app.database import Database, as_json, insert_on_conflict, json_text, metadata
from app.errors import ConfigurationError, NotFound
from app.events import events
from app.files.claim import Claim
from app.files.models import File, files
from app.files.repository import known
from app.storage.base import Storage
from app.telemetry import faults
from app.upkeep import Skipped

BATCH = 200  # rows; a result may hold the text of a whole document
CONCURRENCY = 4  # files; each takes the memory of one upload
PROGRESS = 1000  # rows or files between two lines of the report; a multiple of BATCH

_Row = dict[str, Any]
_Fingerprint = list[int | None]
_Report = Callable[[str], None]
_Outcome = Literal["copied", "found", "unsent", "missing", "damaged"]


class TransferError(Exception):
    """The transfer was refused, or its copy may be wrong. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer from one service's database and storage to another's.

    Without a `source_db` the rows stay in `target_db`; without storages the files stay where they are.
    """

    target_db: Database
    source_db: Database | None = None
    source_storage: Storage | None = None
    target_storage: Storage | None = None

    async def run(self, report: _Report) -> bool:
        """Copy and verify everything, then close the databases and storages. `report` gets a line of text at a time.

        Returns False if files were missing or damaged at the source, each of which was reported. May be started again
        after any failure. Raises TransferError, ConfigurationError, and what the databases and storages raise.
        """
        try:
            return await self._run(report)
        finally:
            for part in (self.source_db, self.target_db, self.source_storage, self.target_storage):
                if part is not None:
                    await part.close()

    async def _run(self, report: _Report) -> bool:
        source, target = self.source_db or self.target_db, self.target_db
        await asyncio.to_thread(target.migrate)
        if (revision := await source.read(migrations.revision)) != migrations.HEAD:
            raise TransferError(
                f"the source database is at revision {revision}, and this version at {migrations.HEAD}: "
                "migrate the source first (python -m app migrate)"
            )
        before = await source.read(_fingerprint)
        if source is not target:
            await _copy_rows(source, target, report)
        complete = True
        if self.source_storage is not None and self.target_storage is not None:
            await self.source_storage.open()
            await self.target_storage.open()
            await _require_known_files(target, self.source_storage)
            await _require_own_files(target, self.target_storage)
            complete = await _copy_files(target, self.source_storage, self.target_storage, report)
        await _require_unchanged(source, target, before, report)
        return complete


def _tables() -> list[Table]:
    """The tables to copy. What is derived from others, the database of the target derives itself."""
    return [table for table in metadata.sorted_tables if not table.info.get("derived")]


async def _copy_rows(source: Database, target: Database, report: _Report) -> None:
    """Copy all rows. Raises TransferError if the target already holds others."""
    for table in _tables():
        if foreign := await _missing(target, source, table):
            raise TransferError(
                f"the target holds {foreign} row(s) of {table.name} that the source has not, or has otherwise: "
                "it is another service's, or one of the two has served meanwhile. Transfer into an empty database"
            )
    for table in _tables():
        count = 0
        async for rows in _batches(source, table):
            await target.write(partial(_insert, table=table, rows=rows))
            faults.hit("transfer.after_batch")
            count += len(rows)
            if count % PROGRESS == 0:
                report(f"{table.name}: {count} rows so far")
        report(f"{table.name}: {count} rows")


async def _require_unchanged(source: Database, target: Database, before: _Fingerprint, report: _Report) -> None:
    """Raise TransferError unless each row of the source is in the target, and both have the fingerprint of before."""
    missing = 0
    if source is not target:
        missing = sum([await _missing(source, target, table) for table in _tables()])
        report(f"rows: every one compared with the source's, {missing} are missing or differ")
    if missing or [await db.read(_fingerprint) for db in (source, target)] != [before, before]:
        raise TransferError(
            "the source or the target has changed meanwhile: stop every process of the service, and begin anew"
        )


async def _missing(these: Database, those: Database, table: Table) -> int:
    """Return how many rows of `these` are missing in `those`, or differ there."""
    missing = 0
    async for rows in _batches(these, table):
        same_keys = _all(table).where(tuple_(*table.primary_key).in_([_key(table, row) for row in rows]))
        others = {_key(table, row): row for row in await those.read(partial(_rows, query=same_keys))}
        missing += sum(others.get(_key(table, row)) != row for row in rows)
    return missing


async def _batches(db: Database, table: Table) -> AsyncIterator[list[_Row]]:
    """Yield the rows of a table in batches, in the order of its primary key by the database's own collation."""
    key = table.primary_key.columns
    query = first = _all(table).order_by(*key).limit(BATCH)
    while rows := await db.read(partial(_rows, query=query)):
        yield rows
        last = [literal(value, column.type) for value, column in zip(_key(table, rows[-1]), key, strict=True)]
        query = first.where(tuple_(*key) > tuple_(*last))


def _all(table: Table) -> Select[Any]:
    """Select the rows of a table, JSON as the text that it is: decoded and encoded again it would be another."""
    return select(*(json_text(each).label(each.name) if isinstance(each.type, JSON) else each for each in table.c))


def _rows(conn: Connection, query: Select[Any]) -> list[_Row]:
    return [dict(row) for row in conn.execute(query).mappings()]


def _key(table: Table, row: _Row) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key)


def _insert(conn: Connection, table: Table, rows: list[_Row]) -> None:
    json = {each.name: as_json(bindparam(each.name, type_=String)) for each in table.c if isinstance(each.type, JSON)}
    conn.execute(insert_on_conflict(conn, table).values(json).on_conflict_do_nothing(), rows)
    column = table.autoincrement_column
    if column is not None and conn.dialect.name == "postgresql":  # SQLite continues after the highest by itself
        conn.execute(select(func.setval(func.pg_get_serial_sequence(table.name, column.name), func.max(column))))


def _fingerprint(conn: Connection) -> _Fingerprint:
    """Return the row count of each table and the highest number of an event.

    Every change by a user and every start of a process appends an event, so any of them alters it.
    """
    counts = [select(func.count()).select_from(table) for table in _tables()]
    return [conn.scalar(query) for query in (*counts, select(func.max(events.c.seq)))]


async def _require_own_files(db: Database, storage: Storage) -> None:
    """Raise TransferError if the files are another database's. A storage without any is marked as `db`'s."""
    claim = Claim(db, storage)
    try:
        await claim.check()
        await claim.refresh(last=True)
    except (ConfigurationError, Skipped) as error:
        raise TransferError(f"the target storage is another service's ({error}). Transfer into an empty one") from None


async def _require_known_files(db: Database, source: Storage) -> None:
    """Raise TransferError if the database knows none of the files: nothing would be copied."""
    keys = await source.sample()
    if keys and not await db.read(partial(known, keys=keys)):
        raise TransferError("the source storage has files, and the database of the target knows none of them")


async def _files(db: Database) -> AsyncIterator[list[File]]:
    """Yield the files to copy, in batches. One that is not verified yet has no `sha256` and may be missing."""
    async for rows in _batches(db, files):
        yield [File.of(row) for row in rows if row["discarded_at"] is None]


async def _copy_files(db: Database, source: Storage, target: Storage, report: _Report) -> bool:
    """Copy and verify the files of `db`. Returns False if any is missing or damaged at the source; each is reported."""
    outcomes = Counter[_Outcome]()

    async def copy(left: Iterator[File]) -> None:
        for file in left:
            outcome = await _copy_file(file, source, target)
            outcomes[outcome] += 1
            if outcome in ("missing", "damaged"):
                report(f"{file.key} is {outcome} at the source")
            if outcomes.total() % PROGRESS == 0:
                report(f"stored files: {outcomes.total()} so far")

    async for batch in _files(db):
        left = iter(batch)
        # After a failure, files that are being copied are finished: the storage must not be closed under them.
        for error in await asyncio.gather(*(copy(left) for _ in range(CONCURRENCY)), return_exceptions=True):
            if error is not None:
                raise error
    faulty = outcomes["missing"] + outcomes["damaged"]
    report(f"stored files: {outcomes['copied']} copied, {outcomes['found']} found there, {faulty} missing or damaged")
    return not faulty


async def _copy_file(file: File, source: Storage, target: Storage) -> _Outcome:
    """Copy a file, unless the target has it already, and verify it there. Raises TransferError."""
    if file.sha256 and await _sha256(target, file) == file.sha256:
        await target.sync(file.key)  # an earlier transfer may have been killed before it was synced
        return "found"
    try:
        async with target.create(file.key) as staged:
            # One byte past the expected size, so that a longer file differs.
            async for chunk in source.read(file.key, 0, file.size + 1):
                await staged.write([chunk])
            sha256 = (await staged.received()).sha256
            if file.sha256 not in (sha256, None):
                return "damaged"
            await target.delete(file.key)  # a wrong file under this key would not be overwritten
            await staged.commit()
    except NotFound:
        return "missing" if file.sha256 else "unsent"
    faults.hit("transfer.after_file")
    if await _sha256(target, file) != sha256:
        raise TransferError(f"{file.key}: the target does not give back what was written to it")
    return "copied"


async def _sha256(storage: Storage, file: File) -> str | None:
    """Return the SHA-256 (hex) of a stored file and of anything after its expected size, or None if it is missing."""
    sha256 = hashlib.sha256()
    with suppress(NotFound):
        async for chunk in storage.read(file.key, 0, file.size + 1):
            sha256.update(chunk)
        return sha256.hexdigest()
    return None
