"""The port to where backups are kept: a storage whose folders can be listed, and that one process writes at a time."""

import fcntl
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from app.backup import BackupError, manifest
from app.errors import AlreadyStored
from app.storage.base import Storage, Stored
from app.storage.disk import Threads, clear

FILES = "files"  # the folder of the files' bytes, each under its SHA-256
BUSY = "another backup to this target is running"
_PAGE = 1000  # entries listed in one thread hop


_FILE = re.compile(f"{FILES}/[0-9a-f]{{64}}")


class Entry(NamedTuple):
    """What is stored under a key: its size in bytes."""

    key: str
    size: int


class Target(Protocol):
    """Where backups are kept. Every call may raise what those of its `storage` raise."""

    storage: Storage

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError."""

    async def close(self) -> None:
        """Release all resources."""

    def entries(self, folder: str) -> AsyncIterator[list[Entry]]:
        """Yield, in batches, what is stored in FILES or in the folder of the backups."""

    def alone(self) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Keep every other process that asks for this out, and remove what a dead one has left half received.

        Yields a function that raises BackupError if others may have come in nevertheless: this process was suspended,
        or cut off. A process that dies keeps nobody out for more than a minute. Raises BackupError.
        """


class FolderTarget:
    """Adapter of Target over a folder, whose `storage` is on the same disk."""

    def __init__(self, root: Path, storage: Storage) -> None:
        self.storage = storage
        self._root = root
        self._threads = Threads(1)

    async def open(self) -> None:
        await self.storage.open()

    async def close(self) -> None:
        self._threads.close(cancel=False)
        await self.storage.close()

    async def entries(self, folder: str) -> AsyncIterator[list[Entry]]:
        found = self._entries(folder)
        while batch := await self._threads.run(lambda: list(islice(found, _PAGE))):
            yield batch

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Callable[[], None]]:
        for path in (self._root / "lock", self._root / "staging"):  # what one of them leads to would be emptied
            if path.is_symlink():
                raise BackupError(f"{path} is a link: remove it")
        with await self._threads.run((self._root / "lock").open, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError(BUSY) from None
            await self._threads.run(clear, self._root / "staging", 0)
            yield lambda: None
            await self._threads.run(self._remove_empty)

    def _remove_empty(self) -> None:
        for folder in (self._root / manifest.FOLDER).glob("*"):
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def _entries(self, folder: str) -> Iterator[Entry]:
        for path in (self._root / folder).glob("??/*" if folder == FILES else "*/*"):
            if folder == FILES and path.name[-2:] != path.parent.name:
                continue  # it is not what has this key
            parent = "" if folder == FILES else f"{path.parent.name}/"
            yield Entry(f"{folder}/{parent}{path.name}", path.stat().st_size)


async def stored_files(target: Target) -> AsyncIterator[list[tuple[str, int]]]:
    """Yield, in batches, the SHA-256 and size of each file that is stored there by backups: not what others keep."""
    async for entries in target.entries(FILES):
        yield [(key.removeprefix(f"{FILES}/"), size) for key, size in entries if _FILE.fullmatch(key)]


async def backup_ids(target: Target, *, complete: bool = True) -> list[str]:
    """The ids of the backups that are complete, or of all that were begun, oldest first."""
    found = set()
    async for entries in target.entries(manifest.FOLDER):
        for each in entries:
            backup_id, _, name = each.key.removeprefix(f"{manifest.FOLDER}/").partition("/")
            if manifest.is_id(backup_id) and (name == manifest.MANIFEST or not complete):
                found.add(backup_id)
    return sorted(found)


async def chosen(target: Target, backup_id: str) -> manifest.Manifest:
    """The manifest of a backup, or of the `latest`. Raises BackupError."""
    if backup_id == "latest":
        ids = await backup_ids(target)
        if not ids:
            raise BackupError("there is no complete backup in the target")
        backup_id = ids[-1]
    return await manifest.read(target.storage, backup_id)


async def store(storage: Storage, key: str, chunks: AsyncIterator[bytes]) -> Stored:
    """Store bytes under a key, in place of what a killed process may have left there."""
    await storage.delete(key)
    async with storage.create(key) as staged:
        async for chunk in chunks:
            await staged.write([chunk])
        return await staged.commit()


async def copy(source: Storage, source_key: str, target: Storage, target_key: str, expected: Stored) -> bool:
    """Copy a file, and publish it only if it is what is expected. Returns False if it is not. Raises NotFound."""
    async with target.create(target_key) as staged:
        # One byte past the expected size, so that a longer file differs.
        async for chunk in source.read(source_key, 0, expected.size + 1):
            await staged.write([chunk])
        if await staged.received() != expected:
            return False
        try:
            await staged.commit()
        except AlreadyStored:  # of another size, or it would not have been copied
            await target.delete(target_key)
            await staged.commit()
        return True
