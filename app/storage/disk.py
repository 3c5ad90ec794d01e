"""What both storages do on a local disk, and the threads in which they wait for it."""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec

from app.errors import StorageFull, StorageUnavailable
from app.storage.base import T

_P = ParamSpec("_P")


class Threads:
    """Eight threads of a storage's own: waiting for disks must not occupy the default pool, which others compute in."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="storage")

    async def run(self, call: Callable[_P, T], *args: _P.args, **kwargs: _P.kwargs) -> T:
        """Run a blocking call in a thread, where it goes on if its caller is cancelled.

        Raises StorageFull or StorageUnavailable for an OSError.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, partial(call, *args, **kwargs))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFull if full else StorageUnavailable) from error

    def close(self) -> None:
        """Accept no more calls; those in progress go on."""
        self._pool.shutdown(wait=False)


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
