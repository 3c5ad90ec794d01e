"""The mark of a storage on a disk: the name of the only folder in a folder.

A name is changed by one atomic rename, copies of any kind carry it along, and a count of the files finds only uploads.
"""

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from app.errors import StorageUnavailable
from app.storage.durable import sync

READS = 100  # attempts to list a folder whose only entry is being renamed


class FolderMark:
    """Blocks. Any number of processes may read and write it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> str | None:
        """What was written last; None if nothing ever was. Raises StorageUnavailable, OSError."""
        for _ in range(READS):
            try:
                found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_ctime_ns)
            except FileNotFoundError:  # there is no mark, or it was renamed just now
                if not self._folder.exists():
                    return None
            else:
                if found:
                    return unquote(found[-1].name)
        raise StorageUnavailable

    def write(self, text: str) -> None:
        """Replace the mark. A power cut leaves this one or the one before. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        new = self._folder / quote(text, safe=" ")
        for old in self._folder.iterdir():
            if old != new:
                with suppress(FileNotFoundError):  # another process was faster
                    old.rename(new)
        new.mkdir(exist_ok=True)
        sync(self._folder)
