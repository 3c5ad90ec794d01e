"""Files of a folder: which are sent, what is in them, and the form that carries one."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self
from uuid import uuid4

SENT = (".pdf", ".docx")  # names that end so, in any case, unless all are wanted
CHUNK = 256 * 1024  # bytes of a file that are in memory at a time

_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\]")  # in the filename of a form


class Found(NamedTuple):
    """An entry of the folder. `name` is its path from there, with `/`.

    `skipped` says why it is not meant to be sent, `unreadable` why it cannot be.
    """

    path: Path
    name: str
    skipped: str = ""
    unreadable: str = ""


def walk(folder: Path, *, recursive: bool, any_name: bool) -> Iterator[Found]:
    """Yield what is in a folder, in no order, without holding a list of it.

    Hidden entries are left out, as are folders unless they are entered: `recursive`. Links are skipped.
    """
    return _walk(folder, "", recursive=recursive, any_name=any_name)


def _walk(folder: Path, prefix: str, *, recursive: bool, any_name: bool) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = Found(Path(entry.path), prefix + entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    yield found._replace(skipped="a symbolic link")
                elif entry.is_dir(follow_symlinks=False):
                    if recursive:
                        yield from _walk(found.path, f"{found.name}/", recursive=True, any_name=any_name)
                elif not entry.is_file(follow_symlinks=False):
                    yield found._replace(skipped="not a regular file")
                elif not any_name and not entry.name.lower().endswith(SENT):
                    yield found._replace(skipped=f"its name does not end in {' or '.join(SENT)}")
                else:
                    yield found
    except OSError as error:
        yield Found(folder, prefix or ".", unreadable=error.strerror or str(error))


class LocalFile(NamedTuple):
    """A file as it was when it was read: its size in bytes, its time of change in ns, and its SHA-256 in hex."""

    path: Path
    name: str
    size: int
    changed_at: int
    sha256: str

    @classmethod
    def read(cls, found: Found) -> Self:
        """Read a file once, for its SHA-256. Blocks. Raises OSError."""
        with found.path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256")
        return cls(found.path, found.name, status.st_size, status.st_mtime_ns, digest.hexdigest())

    @property
    def filename(self) -> str:
        """The last part of its name, as a form can carry it."""
        return filename_of(self.name)

    @property
    def subfolder(self) -> str:
        """The folders that it is in, from the one that is uploaded; empty if it is right there."""
        return folder_of(self.name)

    def has_changed(self) -> bool:
        """Whether it is another one now."""
        try:
            status = self.path.stat()
        except OSError:
            return True
        return (status.st_size, status.st_mtime_ns) != (self.size, self.changed_at)


class UploadForm:
    """The body of POST /documents for a file: multipart/form-data, which is read from the disk as it is sent."""

    def __init__(self, file: LocalFile, metadata: dict[str, Any]) -> None:
        boundary = uuid4().hex
        name = file.filename.replace('"', '\\"')
        self._file = file
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n'
            f"Content-Type: application/json\r\n\r\n{json.dumps(metadata)}\r\n"
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = len(self._head) + file.size + len(self._tail)

    def open(self) -> BinaryIO:
        """The file, for `chunks`. Raises OSError."""
        return self._file.path.open("rb")

    async def chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        """Yield the body. Raises OSError, EOFError if the file is shorter now."""
        yield self._head
        left = self._file.size
        while left:
            chunk = await asyncio.to_thread(file.read, min(CHUNK, left))
            if not chunk:
                raise EOFError
            left -= len(chunk)
            yield chunk
        yield self._tail


def filename_of(name: str) -> str:
    """The last part of a name, as a form can carry it."""
    return _UNUSABLE.sub("_", _text(name.rpartition("/")[2]))


def folder_of(name: str) -> str:
    """What is before the last part of a name; empty if there is nothing."""
    return _text(name.rpartition("/")[0])


def _text(name: str) -> str:
    """A name of the file system, which may hold bytes that are no text."""
    return os.fsencode(name).decode("utf-8", "replace")
