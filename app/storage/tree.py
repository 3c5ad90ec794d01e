"""The folders of files on a local disk: each file lies in the one that has the last two characters of its name.

What lies elsewhere under FOLDER the service has not put there. It is seen, and left alone.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.storage.base import FOLDER, Listed


def place_of(root: Path, key: str) -> Path:
    """Where the file of a key lies; one whose key has two folders lies in these."""
    *folders, name = key.split("/")
    return root.joinpath(*folders, name[-2:] if len(folders) == 1 else "", name)


def placed(root: Path) -> Iterator["os.DirEntry[str]"]:
    """The files that lie where they belong. Blocks."""
    return (entry for entry, in_place in _within(root / FOLDER) if in_place)


def misplaced(root: Path) -> Iterator[Listed]:
    """Those that do not, whoever has put them there. Blocks."""
    for entry, in_place in _within(root / FOLDER):
        if not in_place:
            place = place_of(root, f"{FOLDER}/{entry.name}").relative_to(root)
            with suppress(FileNotFoundError):  # removed just now
                stat = entry.stat(follow_symlinks=False)
                path = Path(entry.path).relative_to(root)
                yield Listed(str(path), stat.st_size, time.time() - stat.st_mtime, place=str(place))


def _within(folder: Path | str, parent: str | None = None) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """All that is below a folder and is none itself, each with whether it is a file in its place. `parent`: the name of
    a folder in FOLDER."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=parent is None):  # a folder there may be on another disk
            yield from _within(entry.path, entry.name if parent is None else "")
        else:
            yield entry, parent == entry.name[-2:] and entry.is_file()


def _entries(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """What is in a folder; nothing, if it does not exist, or is none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries
