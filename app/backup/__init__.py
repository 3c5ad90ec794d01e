"""Copies of a service's database and files while it runs, and a service made of such a copy.

A target has `files/<sha256>`, each file once however many backups name it, and `backups/<id>/` with `database.dump`,
`files.ndjson` (key, SHA-256 and size of each) and `manifest.json`. That is written last: without it there is no backup.
"""

import asyncio
from collections.abc import Awaitable, Callable

Report = Callable[[str], None]

PROGRESS = 1000  # files between two lines of the report
CONCURRENCY = 4  # files at once; each takes the memory of one upload


class BackupError(Exception):
    """A backup or a restore was refused, or cannot be completed. The message is one line for the operator."""


async def in_parallel(work: Callable[[], Awaitable[None]]) -> None:
    """Run a piece of work CONCURRENCY times at once. After a failure the others end before it is raised."""
    for error in await asyncio.gather(*(work() for _ in range(CONCURRENCY)), return_exceptions=True):
        if error is not None:
            raise error
