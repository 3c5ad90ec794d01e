"""What services know of file storage, whichever it is."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")

FOLDER = "documents"  # of every key; what lies beside it is somebody else's
MARK = f"{FOLDER}/mark"  # no file's key: they are ids


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file turned out to be: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


class Staged(Protocol):
    """A file that is being received. Nobody sees it before `commit`."""

    async def received(self) -> Stored:
        """What was written so far."""

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Append bytes. Memory use does not grow with the file."""

    async def inspect(self, examine: Callable[[BinaryIO], T]) -> T:
        """Run `examine` off the event loop over all bytes, as a seekable file. Nothing may be written after it."""

    async def commit(self) -> Stored:
        """Publish the file under its key. When this returns, it survives a power cut.

        Raises AlreadyStored if the key has a file, which stays as it is. A Presigner is asked for new keys only, and
        may leave that to its URLs. Failed or cancelled on the way, it may have published the file all the same.
        """


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that a client is going to send by itself: its size in bytes and, if it was said, its SHA-256 in hex."""

    size: int
    content_type: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Presigned:
    """Where a file is to be PUT, and the headers to send with it. The URL may be relative to that of the service.

    `name` is what the storage calls the file.
    """

    name: str
    url: str
    headers: Mapping[str, str]


@runtime_checkable
class Presigner(Protocol):
    """What a storage may be able to do besides: let clients put files into it past the service."""

    async def presign(self, key: str, file: Announced, seconds: int) -> Presigned:
        """A URL that anybody may put this very file to for so many seconds, under a key that has none.

        Raises PayloadTooLarge if it is too large for one request.
        Whoever signs may be lax about what is sent, never about the key, the time, or a file that is there already.
        """


class Storage(Protocol):
    """Obligations of an adapter: keys are our own (FOLDER, a slash and a name, never a client's name), and are written
    once; every call may raise StorageUnavailable or StorageFull and nothing else of its own; a missing file is
    NotFound."""

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError for what only another setting can mend; a
        storage that is merely away is `check`'s to tell."""

    async def close(self) -> None:
        """Let go of everything. No other call may follow, or be under way."""

    def create(self, key: str) -> AbstractAsyncContextManager[Staged]:
        """Begin a file. Leaving the block before a commit, for whatever reason, leaves nothing behind."""

    def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """The bytes from `start` on, `length` of them or as many as there are, in chunks. The first chunk fails if the
        file is missing."""

    def local_copy(self, key: str) -> AbstractAsyncContextManager[Path]:
        """The file under a path on this machine, for as long as the block lasts. Not to be written to."""

    async def sync(self, key: str) -> None:
        """Have a file that can be read survive a power cut: whoever is committing it may not be done."""

    async def delete(self, key: str) -> None:
        """Remove the file; one that is not there is no error."""

    def stale(self, older_than: float) -> AsyncIterator[list[str]]:
        """The keys of files committed more than `older_than` seconds ago, in batches; a key may come later than that,
        never sooner. Abandoned staging of that age is removed on the way, never what is still being received."""

    async def sample(self) -> list[str]:
        """The keys of some files, whatever their age: none only if there are none."""

    async def read_mark(self) -> str | None:
        """What was written by `write_mark` last, by whatever process; None if nothing ever was."""

    async def write_mark(self, text: str) -> None:
        """Keep a line of text with the files, in place of the one before. Nobody ever reads half of it."""

    async def check(self) -> None:
        """Raise unless storage answers and would take a file. The error's detail is one line for the operator."""
