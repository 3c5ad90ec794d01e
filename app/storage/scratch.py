"""Temporary files, each locked by the process that uses it."""

import fcntl
import time
from contextlib import suppress
from pathlib import Path


def clear(folder: Path, older_than: float) -> None:
    """Remove what dead processes left in the folder more than `older_than` seconds ago. Blocks."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError, BlockingIOError):
            if path.stat().st_mtime < time.time() - older_than:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
