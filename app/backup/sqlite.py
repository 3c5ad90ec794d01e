"""Snapshots of SQLite, by its backup API: a copy of the file at one moment, made in one step.

In WAL mode neither the writer waits for such a step nor the step for the writer; while it lasts, the log grows. In
several steps, each write of another process would let it begin anew.
"""

import asyncio
import fcntl
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine

from app.backup import BackupError
from app.backup.snapshots import revision_of
from app.database.base import T
from app.errors import ConfigurationError
from app.storage.disk import clear, sync

CHUNK = 1024**2  # bytes


class SqliteSource:
    """Adapter of Source over SQLite's file. A snapshot takes its size once more in the folder `scratch`."""

    kind = "sqlite"

    def __init__(self, file: Path, scratch: Path) -> None:
        self._file = file
        self._scratch = scratch

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["SqliteSnapshot"]:
        self._scratch.mkdir(parents=True, exist_ok=True)
        clear(self._scratch, 0)
        with NamedTemporaryFile(dir=self._scratch) as copy:
            fcntl.flock(copy, fcntl.LOCK_EX)  # or another backup would remove it as a dead process's
            await asyncio.to_thread(_copy, self._file, Path(copy.name))
            yield SqliteSnapshot(Path(copy.name))

    async def revision(self) -> str | None:
        log = self._file.with_name(f"{self._file.name}-wal")
        if self._file.exists():
            return await self.read(revision_of)
        if log.exists():
            raise ConfigurationError(f"DATABASE_URL: {log} belongs to a database that is gone: remove it first")
        return None

    async def read(self, unit: Callable[[Connection], T]) -> T:
        return await SqliteSnapshot(self._file, "rw").read(unit)

    async def load(self, dump: Path) -> None:
        await asyncio.to_thread(_place, dump, self._file)


class SqliteSnapshot:
    """A file that nobody writes to."""

    def __init__(self, file: Path, mode: str = "ro&immutable=1") -> None:
        self._file = file
        self._address = f"file:{quote(str(file))}?mode={mode}"
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool)

    async def read(self, unit: Callable[[Connection], T]) -> T:
        with self._engine.connect() as conn:
            return unit(conn)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._address, uri=True)

    async def dump(self) -> AsyncIterator[bytes]:
        with self._file.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk


def _copy(source: Path, target: Path) -> None:
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            new.execute("PRAGMA synchronous=OFF")  # it is read at once, and then removed
            old.backup(new, pages=-1)
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied to {target.parent}: {error}") from error


def _place(dump: Path, file: Path) -> None:
    """Copy the file, and give the copy its name when it is on the disk."""
    draft = file.with_name(f"{file.name}.restored")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with dump.open("rb") as old, draft.open("wb") as new:
            shutil.copyfileobj(old, new, CHUNK)
            new.flush()
            os.fsync(new.fileno())
        draft.rename(file)
        sync(file.parent)
    except OSError as error:
        raise BackupError(f"{file} cannot be written: {error.strerror}") from error
