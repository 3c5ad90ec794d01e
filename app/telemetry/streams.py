"""Where log lines go: a standard stream, or a file that may be moved away. Neither fails what is logged."""

import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Literal

LOOK_SECONDS = 1.0  # after which it is looked whether the file is still the one of that name
NOTICE_SECONDS = 60.0  # after which it is said again that the file takes no lines
_MODE = 0o640  # of a new file: its lines tell who did what, and from where


class Standard:
    """A standard stream without errors: a full disk, a closed pipe or a file's name that is no text must not fail the
    operation that is logged."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name

    def write(self, text: str) -> None:
        """Write text, or nothing."""
        stream = getattr(sys, self._name)
        with suppress(OSError):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(text.encode("ascii", "backslashreplace").decode())

    def flush(self) -> None:
        """Hand over what was written to the system."""
        with suppress(OSError):
            getattr(sys, self._name).flush()


class LogFile:
    """A file to which several processes append whole lines, and which may be renamed or removed at any time.

    The next line, or one that is written at most LOOK_SECONDS later, begins a new file of the old name. While the file
    takes no lines, they go to standard error; once in NOTICE_SECONDS, `notice` makes a line of the reason.
    """

    def __init__(self, path: Path, notice: Callable[[OSError], str]) -> None:
        self._path = path
        self._notice = notice
        self._fd: int | None = None
        self._look_at = self._notice_at = 0.0  # of time.monotonic()
        self._lock = RLock()  # a destructor that warns may be called while a line is written
        self._instead = Standard("stderr")

    def write(self, text: str) -> None:
        """Append text that ends with a line's end, in one piece."""
        with self._lock:
            try:
                self._append(self._current(), text.encode("utf-8", "backslashreplace"))
            except OSError as error:
                self._write_instead(text, error)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def _current(self) -> int:
        """The descriptor of the file that has the name."""
        now = time.monotonic()
        if self._fd is not None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if not self._has_the_name(self._fd):
                fd, self._fd = self._fd, None
                os.close(fd)
        if self._fd is None:
            self._fd = open_log(self._path)
            self._look_at = now + LOOK_SECONDS
        return self._fd

    def _has_the_name(self, fd: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(fd))
        except OSError:
            return False

    def _append(self, fd: int, line: bytes) -> None:
        written = os.write(fd, line)
        if written == len(line):
            return
        # The disk is full. A part of a line would be the beginning of somebody's next one.
        end = os.lseek(fd, 0, os.SEEK_CUR)
        if os.fstat(fd).st_size == end:
            os.ftruncate(fd, end - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_instead(self, text: str, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._notice_at:
            self._notice_at = now + NOTICE_SECONDS
            self._instead.write(self._notice(error))
        self._instead.write(text)
        self._instead.flush()


def open_log(path: Path) -> int:
    """Open a file for lines at its end, and create it if need be; returns its descriptor. Raises OSError."""
    # Nobody waits for who reads a pipe: without a reader it cannot be opened, and while it is full it takes nothing.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o600)
        os.fchmod(fd, _MODE)  # whatever the umask is, which a process tightens once it serves
        return fd
