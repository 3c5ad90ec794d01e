"""Progress on standard error: a bar on a terminal, otherwise lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

_INTERVAL = 10.0  # seconds between two lines about progress
_ERASE = "\r\x1b[K"  # the line that the cursor is in


class Progress(Protocol):
    """Shows how many files are done, and lines about some of them."""

    def advance(self) -> None:
        """One more file is done."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class _Lines:
    def __init__(self, total: int) -> None:
        self._total, self._done, self._said_at = total, 0, time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._said_at > _INTERVAL:
            self._said_at = time.monotonic()
            self.say(f"{self._done} of {self._total} files")

    def say(self, line: str) -> None:
        typer.echo(line, err=True)


@contextmanager
def shown(total: int) -> Iterator[Progress]:
    """Show the progress of so many files."""
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    with typer.progressbar(length=total, label="Files", show_pos=True, file=sys.stderr) as bar:

        class Bar:
            def advance(self) -> None:
                bar.update(1)

            def say(self, line: str) -> None:
                typer.echo(_ERASE + line, err=True)
                bar.render_progress()

        yield Bar()
