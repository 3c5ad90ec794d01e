"""The storage port: write-once files under keys."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from app.limiter import T
from app.storage.disk import Threads

CHUNK = 512 * 1024  # bytes read at once: on a disk 1.25x the throughput of 256 KiB; 1 MiB is no faster
FOLDER = "documents"  # the first part of every key; other folders in the same storage are not touched


@dataclass(frozen=True, slots=True)
class Stored:
    """What was received: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as a listing shows it: its key, its size in bytes, and how many seconds ago it was committed.

    An adapter may take files for a little younger than they are. `place`: where a file belongs that lies elsewhere; it
    cannot be read, and its key says where it lies.
    """

    key: str
    size: int
    age: float
    place: str = ""


class Staged(Protocol):
    """A file that is being received, invisible under its key until `commit`."""

    async def received(self) -> Stored:
        """Return the size and SHA-256 of what was written so far."""

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Append bytes. Memory use does not grow with the file. Raises StorageUnavailable, StorageFull."""

    async def inspect(self, examine: Callable[[BinaryIO], T], threads: Threads | None = None) -> T:
        """Run `examine` on a seekable file of all bytes, in one of these threads or else of the storage's own.

        Nothing may be written afterwards.

        Raises StorageUnavailable, StorageFull, and what `examine` raises.
        """

    async def commit(self) -> Stored:
        """Publish the file under its key. When this returns, the file survives a power cut.

        Raises AlreadyStored if the key already has a file, which is left as it is. (A Presigner may leave this check to
        its URLs: its `create` is only called with new keys.) Raises StorageUnavailable, StorageFull. A commit that
        fails or is cancelled may have published the file nevertheless.
        """


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that a client is going to send: its size in bytes and, if the client gave it, its SHA-256 in hex."""

    size: int
    content_type: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Presigned:
    """Where to PUT a file, and the headers to send with it. `url` may be relative to the service's own.

    `name` is the file's name in the storage.
    """

    name: str
    url: str
    headers: Mapping[str, str]


@runtime_checkable
class Presigner(Protocol):
    """An optional ability of a storage: clients put files into it without going through the service."""

    async def presign(self, key: str, file: Announced, seconds: int) -> Presigned:
        """Return a URL to which this file can be PUT for `seconds`, by anybody, if the key has no file yet.

        The signature must protect the key, the expiry and a file that is already there. It may be lax about size, type
        and hash, which completing the upload checks again. Raises PayloadTooLarge if the file is too large for one
        request.
        """


@runtime_checkable
class Sharer(Protocol):
    """An optional ability of a storage: clients get files from it without going through the service."""

    async def presign_get(self, key: str, seconds: int) -> str | None:
        """Return a URL at which anybody can GET the file for `seconds`; None if clients may not reach the storage.
        Raises StorageUnavailable."""


@runtime_checkable
class Notebook(Protocol):
    """An optional ability of a storage on another machine: it keeps short texts that are no files, and sweeps none.

    A note is named by a folder that is not FOLDER, slashes, and what the service chose.
    """

    async def write_note(self, name: str, text: str) -> None:
        """Keep a text under this name. One that is there already is left as it is. Raises StorageUnavailable,
        StorageFull."""

    def notes(self, folder: str, after: str = "") -> AsyncIterator[str]:
        """Yield the texts in a folder in the order of their names: of those that come after this one."""


class Storage(Protocol):
    """What services need from a file storage.

    A key is FOLDER, a slash and a name that the service made, never a client's filename. A key is written once. Every
    call may raise StorageUnavailable or StorageFull, and NotFound for a missing file, but no other error of the
    adapter's own.
    """

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError for what only another setting can fix.

        An unreachable storage is no error here: `check` reports it.
        """

    async def close(self) -> None:
        """Release all resources. No other call may be in progress, or follow."""

    def create(self, key: str) -> AbstractAsyncContextManager[Staged]:
        """Begin a file. Leaving the block without a commit, for any reason, removes what was received."""

    def read(self, key: str, start: int, length: int, *, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        """Yield up to `length` bytes from `start` on, at most `chunk` at once. A missing file raises NotFound at the
        first one."""

    def local_copy(self, key: str) -> AbstractAsyncContextManager[Path]:
        """Yield a path on this machine at which the file can be read, but not written, inside the block."""

    async def sync(self, key: str) -> None:
        """Make a readable file survive a power cut: the process that committed it may have died before syncing it."""

    async def delete(self, key: str) -> None:
        """Remove the file. A missing file is no error."""

    def stale(self, older_than: float) -> AsyncIterator[list[str]]:
        """Yield, in batches, the keys of files that were committed more than `older_than` seconds ago.

        An adapter may leave out files that are only a little older. It also removes staged files of that age whose
        process has died, never one that is still being received.
        """

    def listing(self) -> AsyncIterator[list[Listed]]:
        """Yield all files, in batches, in the order of their keys by code point; last those that do not lie where they
        belong. Memory does not grow with their number. Files that are added or removed meanwhile may be left out, or
        not."""

    async def sample(self) -> list[str]:
        """The keys of some files, whatever their age: none only if there are none."""

    async def read_mark(self) -> str | None:
        """What was last written by `write_mark`, by whichever process; None if nothing ever was."""

    async def write_mark(self, text: str) -> None:
        """Keep a line of text with the files, in place of the one before. Nobody ever reads half of it.

        It has up to 200 letters, digits, spaces and hyphens.
        """

    async def check(self) -> None:
        """Raise unless the storage answers and would accept a file. The error's detail is one line for the operator."""
