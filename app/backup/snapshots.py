"""The port to a database as it was at one moment, and to an empty one that shall become what that was.

The adapters are of the databases that the service runs on: a snapshot goes back only into one of the same kind.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Select, Table, func, inspect, select

from app import events, migrations
from app.backup.plan import Listed
from app.database import metadata
from app.database.base import T
from app.documents.models import documents
from app.errors import ConfigurationError
from app.files.models import files

_BATCH = 1000  # files
STORED = (files.c.discarded_at.is_(None), files.c.sha256.is_not(None))  # what documents and results refer to
_OLDEST = "0007"  # revision since which files have rows


class Snapshot(Protocol):
    """A database at one moment, for as long as the block lasts that has made it."""

    async def read(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit that only reads."""

    def dump(self) -> AsyncIterator[bytes]:
        """Yield the whole database, in a form that `Source.load` understands. Raises BackupError."""


class Source(Protocol):
    """A database of one kind: `sqlite` or `postgresql`. Raises ConfigurationError for what a setting or a program that
    is not installed makes impossible."""

    kind: str

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Hold on to the database as it is now. Writers do not wait for it."""

    async def revision(self) -> str | None:
        """The revision of the schema that is there now; None if there is none, nor any of the service's tables."""

    async def read(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit that only reads, on the database as it is now."""

    async def load(self, dump: Path) -> None:
        """Bring what was dumped into the empty database: all of it is there when this returns, and before nothing is.

        Raises BackupError.
        """


def require_known(revision: str | None) -> str:
    """Raises ConfigurationError unless there is a schema whose files this version can list."""
    if not revision:
        raise ConfigurationError("DATABASE_URL: there is nothing to back up: the database is empty")
    if revision < _OLDEST:
        raise ConfigurationError(f"DATABASE_URL: the database is at revision {revision}: migrate it first")
    return revision


def revision_of(conn: Connection) -> str | None:
    """The revision of the schema; "" if there is none, but a table of the service."""
    if (found := migrations.revision(conn)) is not None:
        return found
    return "" if metadata.tables.keys() & set(inspect(conn).get_table_names()) else None


def latest_event(conn: Connection) -> str | None:
    """Number and id of the latest event, which no other database has."""
    found = events.latest(conn)
    return f"{found.seq} {found.id}" if found else None


def happened(conn: Connection, event: str | None) -> bool:
    """Whether an event, as `latest_event` names it, is in this database. None is in every one."""
    if event is None:
        return True
    number, _, event_id = event.partition(" ")
    return events.happened_within(conn, events.Reference(int(number), UUID(event_id)), 0) is not None


def holds_secret(conn: Connection, tables: list[Table]) -> bool:
    """Whether a table of those that hold encrypted secrets has a row."""
    return any(conn.scalar(select(func.count()).select_from(table)) for table in tables)


def count_of_documents(conn: Connection) -> int:
    return conn.scalar(select(func.count()).select_from(documents)) or 0


async def listed(snapshot: Snapshot) -> AsyncIterator[list[Listed]]:
    """Yield the files that documents and results refer to, in batches: neither those that were discarded nor those that
    were announced and not verified yet."""
    first = select(files.c.key, files.c.sha256, files.c.size).where(*STORED).order_by(files.c.key).limit(_BATCH)
    query = first
    while batch := await snapshot.read(partial(_listed, query=query)):
        yield batch
        query = first.where(files.c.key > batch[-1].key)


def _listed(conn: Connection, query: Select[Any]) -> list[Listed]:
    return [Listed(*row) for row in conn.execute(query)]
