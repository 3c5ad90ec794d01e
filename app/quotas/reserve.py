"""The part of the disk that is kept free: for logging in and out, deleting, cancelling, and for jobs to end.

Without it, whoever fills the disk locks everybody out, and nobody could delete anything to end that.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from app.errors import StorageFull

log = structlog.get_logger()

INTERVAL = 1.0  # seconds between two looks at the disk
_SHARE, _MOST = 0.05, 1024**3  # of a disk, and bytes at the most, unless a setting says otherwise


class Reserve:
    """Refuses what adds data while less than `size` bytes are free on the disk of one of the folders.

    None: 5 % of that disk, at most 1 GiB. 0: nothing is refused.
    """

    def __init__(self, folders: Sequence[Path], size: int | None) -> None:
        self._folders = folders if size != 0 else ()
        self._size = size
        self._reached = False
        self._alarm: str | None = None

    def require(self) -> None:
        """Raise StorageFull while the reserve is reached. Costs nothing."""
        if self._reached:
            raise StorageFull("The disk is almost full. Nothing can be added; what is there can be read and deleted.")

    def alarm(self) -> str | None:
        """Which disk is almost full; None if more than twice the reserve is free."""
        return self._alarm

    async def run(self) -> None:
        """Look at the disks again and again, until cancelled."""
        while self._folders:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(INTERVAL)

    def look(self) -> None:
        """Look at the disks now. One that cannot be looked at is left to the checks of database and storage. Blocks."""
        found = [each for folder in self._folders if (each := self._low(folder))]
        reached = any(is_reached for is_reached, _ in found)
        if reached != self._reached:
            log.warning("disk.reserve_reached" if reached else "disk.reserve_free")
        self._reached = reached
        self._alarm = found[0][1] if found else None

    def _low(self, folder: Path) -> tuple[bool, str] | None:
        """Whether the reserve of a disk is reached, and a text that says so, or that it soon will be. None: neither."""
        try:
            disk = os.statvfs(folder)
        except OSError:
            return None
        size = min(_SHARE * disk.f_blocks * disk.f_frsize, _MOST) if self._size is None else self._size
        free = disk.f_bavail * disk.f_frsize
        if free >= 2 * size:
            return None
        consequence = "nothing can be added" if free < size else f"below {size:.0f}, nothing can be added any more"
        return free < size, f"{folder}: {free} bytes are free: {consequence}"
