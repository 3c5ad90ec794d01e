"""The port of the inbox: a place where others leave files."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class Changed(Exception):
    """The file is gone, or it is another one than was seen. Another watcher may have moved it: look again."""


class Unusable(Exception):
    """The place, or a file in it, cannot be read or changed. The message is one line for the operator."""

    def __init__(self, reason: str) -> None:
        # It may name a file, and bytes of names need not be text.
        super().__init__(os.fsencode(reason).decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was seen: its path from the inbox, with slashes, and its size in bytes.

    `version` is another one as soon as it is another file, or its size or time of change is another.
    """

    name: str
    size: int
    version: str


class Inbox(Protocol):
    """What the watcher needs of the place. Every call may raise Unusable."""

    settles: bool
    """Whether a file may be seen before it is whole, so that it has to be watched until it does not change."""

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError for what only another setting can fix."""

    async def close(self) -> None:
        """Release all resources."""

    def look(self) -> AsyncIterator[list[Found]]:
        """Yield, in batches, the files that are there and not passed over (see `names.py`).

        Raises Unusable for a part of the inbox that cannot be listed only after all others.
        """

    def read(self, file: Found) -> AsyncIterator[bytes]:
        """Yield the bytes of a file. Raises Changed before the first, or after the last, if it is not what was seen."""

    async def move(self, file: Found, to: str, reason: str = "") -> None:
        """Give a file another path in the inbox, which no other file has, and write the reason, if any, beside it.

        Raises Changed, and then leaves the file where it is.
        """
