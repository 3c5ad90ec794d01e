"""An inbox that is a folder. Nothing outside of it is read or written, whatever links others put there."""

import errno
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from uuid import uuid4

from app.errors import ConfigurationError
from app.inbox.base import Changed, Found, Unusable
from app.inbox.names import DONE, REASON, REFUSED, passed_over
from app.limiter import P, T, Threads
from app.storage.disk import OpenFile
from app.telemetry import faults

CHUNK = 512 * 1024  # bytes read at once
PAGE = 500  # files listed in one thread hop

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would block
_TEXT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # or there is something else, such as a link


class FolderInbox:
    """Adapter of the Inbox port over a folder of one file system."""

    settles = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads(4, "inbox")

    async def open(self) -> None:
        try:
            await self._threads.run(self._prepare)
        except OSError as error:
            raise ConfigurationError(f"INBOX_URL: {self._root}: {error.strerror}") from None

    async def close(self) -> None:
        self._threads.close()

    async def look(self) -> AsyncIterator[list[Found]]:
        found = self._walk()
        while batch := await self._run(lambda: list(islice(found, PAGE))):
            yield batch

    async def read(self, file: Found) -> AsyncIterator[bytes]:
        opened, position = await self._run(_open, self._root, file), 0
        while position < file.size:
            chunk = await self._run(opened.read, position, min(CHUNK, file.size - position))
            if not chunk:
                raise Changed
            position += len(chunk)
            yield chunk
        if _version(await self._run(os.fstat, opened.descriptor)) != file.version:
            raise Changed

    async def move(self, file: Found, to: str, reason: str = "") -> None:
        await self._run(_move, self._root, file, to, reason)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a thread. Raises Unusable for an OSError."""
        try:
            return await self._threads.run(call, *args, **kwargs)
        except OSError as error:
            raise Unusable(f"{error.filename or self._root}: {error.strerror}") from error

    def _prepare(self) -> None:
        """Make the folders for what is done with. Raises OSError if that, or to move files there, is impossible."""
        for folder in (DONE, REFUSED):
            with _opened(self._root, folder, making=True):
                pass
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _walk(self) -> Iterator[Found]:
        folders, failed = deque([""]), ""
        while folders:
            folder = folders.popleft()
            try:
                with _opened(self._root, folder) as descriptor, os.scandir(descriptor) as entries:
                    for entry in entries:
                        name = f"{folder}/{entry.name}".removeprefix("/")
                        if entry.is_dir(follow_symlinks=False):
                            folders += [] if passed_over(f"{name}/file") else [name]
                        elif found := _found(entry, name):
                            yield found
            except OSError as error:
                if not folder or error.errno not in _GONE:
                    failed = failed or f"{self._root / folder}: {error.strerror}"
        if failed:
            raise Unusable(failed)


def _found(entry: "os.DirEntry[str]", name: str) -> Found | None:
    """The file that an entry is; None for a link, a pipe and the like, what is passed over, empty, or gone."""
    if not entry.is_file(follow_symlinks=False) or passed_over(name):
        return None
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Found(name, status.st_size, _version(status)) if status.st_size else None


@contextmanager
def _opened(root: Path, folder: str, *, making: bool = False) -> Iterator[int]:
    """The descriptor of a folder in the inbox, to which no link has led. Raises OSError, EXDEV for a mount."""
    descriptor = os.open(root, _ROOT)
    try:
        device = os.fstat(descriptor).st_dev
        for part in folder.split("/") if folder else ():
            if making:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            below = os.open(part, _BELOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        if os.fstat(descriptor).st_dev != device:
            raise OSError(errno.EXDEV, "on another file system, where no file can be moved to or from")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _containing(root: Path, name: str) -> Iterator[int]:
    """The descriptor of the folder that has a file. Raises Changed if it is gone."""
    try:
        with _opened(root, name.rpartition("/")[0]) as descriptor:
            yield descriptor
    except OSError as error:
        if error.errno in _GONE:
            raise Changed from None
        raise


def _open(root: Path, file: Found) -> OpenFile:
    """Raises Changed unless it is the regular file that was seen."""
    with _containing(root, file.name) as folder:
        opened = OpenFile(os.open(file.name.rpartition("/")[2], _FILE, dir_fd=folder))
    status = os.fstat(opened.descriptor)
    if not stat.S_ISREG(status.st_mode) or _version(status) != file.version:
        raise Changed
    return opened


def _move(root: Path, file: Found, to: str, reason: str) -> None:
    name, (folder, _, new) = file.name.rpartition("/")[2], to.rpartition("/")
    with _opened(root, folder, making=True) as there, _containing(root, file.name) as here:
        if _version(os.stat(name, dir_fd=here, follow_symlinks=False)) != file.version:
            raise Changed
        if reason:
            with os.fdopen(os.open(f"{new}{REASON}", _TEXT, 0o666, dir_fd=there), "w", encoding="utf-8") as text:
                text.write(f"{reason}\n")
            faults.hit("inbox.after_reason")
        os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)
        if _version(os.stat(new, dir_fd=there, follow_symlinks=False)) != file.version:
            _put_back(there, new, here, name)
            raise Changed


def _put_back(there: int, new: str, here: int, name: str) -> None:
    """Undo the move of what has taken the file's place at the last moment, and leave alone what is there by now."""
    for free in (name, f"{uuid4().hex}-{name}"):
        with suppress(FileExistsError):
            os.link(new, free, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
            break
    os.unlink(new, dir_fd=there)
    with suppress(FileNotFoundError):
        os.unlink(f"{new}{REASON}", dir_fd=there)


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
