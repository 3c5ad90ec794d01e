"""A file that takes up room, to be given back to a database whose disk is full.

To delete rows, too, a database has to write first.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

# Of the disk, and bytes at the most: what the write-ahead log grows to before it is used again from its beginning.
_SHARE, _MOST = 1 / 16, 4 * 1024**2
_ROOM = 4  # times its size that must be free for it to be made
_INTERVAL = 10.0  # seconds after which one that was given back is made again, if there is room


class Ballast:
    """One file for all processes. Each may give it back, and the one that did makes it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_try = 0.0

    def load(self) -> None:
        """Take up room, unless that is done, or there is little. Cheap when called again. Blocks."""
        if time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + _INTERVAL
        with suppress(OSError):
            disk = os.statvfs(self._path.parent)
            size = int(min(_SHARE * disk.f_blocks * disk.f_frsize, _MOST))
            if self._path.exists() or disk.f_bavail * disk.f_frsize >= _ROOM * size:
                self._allocate(size)
                self._next_try = float("inf")

    def drop(self) -> bool:
        """Give the room back. False: that is done already."""
        self._next_try = time.monotonic() + _INTERVAL
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _allocate(self, size: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
