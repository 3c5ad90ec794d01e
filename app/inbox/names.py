"""Which files are passed over, and where those go that are done with."""

import hashlib
import os
from pathlib import PurePosixPath

from app.inbox.base import Found

DONE, REFUSED = "done", "refused"  # folders at the top, which are not watched
REASON = ".reason.txt"
UNFINISHED = (".part", ".tmp", ".crdownload", "~")  # how programs name what they are still writing

_LONGEST = 255 - len(REASON)  # bytes that a file system allows in a name
_LONGEST_EXTENSION = 20  # characters


def passed_over(name: str) -> bool:
    """Whether a path in the inbox is none of a file to take: it is hidden, unfinished, or done with."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or not part for part in parts)
    return hidden or parts[-1].lower().endswith(UNFINISHED) or (len(parts) > 1 and parts[0] in {DONE, REFUSED})


def done(file: Found, document_id: str) -> str:
    """Where a file goes that has become this document."""
    return f"{DONE}/{_marked(file.name, document_id)}"


def refused(file: Found) -> str:
    """Where a refused file goes: the same path each time, or one whose move was interrupted would leave two reasons."""
    mark = hashlib.sha256(os.fsencode(f"{file.name}\0{file.version}")).hexdigest()
    return f"{REFUSED}/{_marked(file.name, mark[:12])}"


def _marked(name: str, mark: str) -> str:
    """A path with a mark before its extension, so that no two files get the same one."""
    folder, slash, filename = name.rpartition("/")
    extension = PurePosixPath(filename).suffix[:_LONGEST_EXTENSION]
    stem = filename.removesuffix(extension)
    most = _LONGEST - len(os.fsencode(f".{mark}{extension}"))
    if len(os.fsencode(stem)) > most:
        stem = os.fsencode(stem)[:most].decode("utf-8", "ignore")
    return f"{folder}{slash}{stem}.{mark}{extension}"
