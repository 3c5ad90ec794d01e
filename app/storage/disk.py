"""What both storages do on a local disk, and the threads in which they wait for it."""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app import limiter
from app.errors import AppError, StorageFull, StorageUnavailable
from app.limiter import P, T
from app.telemetry import metrics

DISK_THREADS = 8


class Threads(limiter.Threads):
    """Threads that wait for a disk."""

    def __init__(self, count: int = DISK_THREADS, name: str = "storage", *, low_priority: bool = False) -> None:
        super().__init__(count, name, low_priority=low_priority)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Threads.run`, but raises StorageFull or StorageUnavailable for an OSError."""
        try:
            return await super().run(call, *args, **kwargs)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise failure(full=full) from error


class OpenFile:
    """A file being read. Nobody closes it but the last reference: a cancelled reader's call goes on in its thread."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Read up to so many bytes. Blocks."""
        return os.pread(self.descriptor, length, start)


def failure(*, full: bool = False) -> AppError:
    """Count that the storage failed, and return the error to raise: StorageFull or StorageUnavailable."""
    metrics.storage_errors.labels("full" if full else "unavailable").inc()
    return StorageFull() if full else StorageUnavailable()


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable: fsync of a file does not cover its name. Blocks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear(folder: Path, older_than: float) -> None:
    """Remove what dead processes left in a folder more than `older_than` seconds ago: files without a lock. Blocks."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError, BlockingIOError):
            if path.stat().st_mtime < time.time() - older_than:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
