"""Files on a local disk: received in a staging folder, synced, then linked under their key.

Layout: `<root>/staging/<random>.part` while a file is received, `<root>/<folder>/<xx>/<name>` once committed. xx is the
last two characters of the name, the random end of a UUIDv7, which keeps the folders small; a key with two folders needs
no more. `<root>/mark` has the mark.
"""

import asyncio
import fcntl
import hashlib
import heapq
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote
from uuid import uuid4

from app.errors import AlreadyStored, NotFound
from app.limiter import T
from app.storage import tree
from app.storage.base import CHUNK, FOLDER, Listed, Stored
from app.storage.disk import OpenFile, Threads, clear, failure, sync

_BATCH = 256 * 1024  # bytes that justify a thread hop of their own; fewer are buffered until the next one
_PAGE = 500  # keys listed in one thread hop
_SORTED = 100_000  # names that are sorted at once, in 20 MB; for each so many, all names are read once
_READS = 100  # attempts to list a folder whose only entry is being renamed
_IOV = min(os.sysconf("SC_IOV_MAX"), 1024)  # pieces that one call writes


class LocalStorage:
    """Adapter of the Storage port over one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mark = root / "mark"
        self._staging = root / "staging"
        self._staging.mkdir(parents=True, exist_ok=True)
        self._threads = Threads()

    async def open(self) -> None:
        """Nothing to do: the constructor has made the folder."""

    async def close(self) -> None:
        self._threads.close(cancel=False)

    @asynccontextmanager
    async def create(self, key: str) -> AsyncIterator["LocalStaged"]:
        staged = LocalStaged(self._threads, self._staging, self._path(key))
        try:
            yield staged
        finally:
            if staged.begun:
                # Shielded: a client that disconnects cancels this task, and must leave nothing behind.
                await asyncio.shield(self._threads.run(staged.discard))

    async def read(self, key: str, start: int, length: int, *, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        file = await self._threads.run(lambda: OpenFile(os.open(self._existing(key), os.O_RDONLY)))
        while length > 0 and (found := await self._threads.run(file.read, start, min(chunk, length))):
            start, length = start + len(found), length - len(found)
            yield found

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        yield await self._threads.run(self._existing, key)

    async def sync(self, key: str) -> None:
        await self._threads.run(self._sync, key)

    async def delete(self, key: str) -> None:
        await self._threads.run(self._unlink, key)

    async def stale(self, older_than: float) -> AsyncIterator[list[str]]:
        await self._threads.run(clear, self._staging, older_than)
        keys = self._stale(time.time() - older_than)
        while batch := await self._threads.run(lambda: list(islice(keys, _PAGE))):
            yield batch

    async def listing(self) -> AsyncIterator[list[Listed]]:
        names = await self._threads.run(self._names)
        while names:
            for start in range(0, len(names), _PAGE):
                yield await self._threads.run(self._listed, names[start : start + _PAGE])
            names = await self._threads.run(self._names, names[-1]) if len(names) == _SORTED else []
        misplaced = tree.misplaced(self._root)
        while batch := await self._threads.run(lambda: list(islice(misplaced, _PAGE))):
            yield batch

    async def sample(self) -> list[str]:
        return await self._threads.run(lambda: [_key(entry) for entry in islice(self._placed(), _PAGE)])

    async def read_mark(self) -> str | None:
        return await self._threads.run(self._read_mark)

    async def write_mark(self, text: str) -> None:
        await self._threads.run(self._write_mark, text)

    async def check(self) -> None:
        await self._threads.run(self._probe)

    def _existing(self, key: str) -> Path:
        """Return the path of a file. Raises NotFound if the file is missing, StorageUnavailable if the disk is."""
        path = self._path(key)
        if not path.exists():
            _require_disk(self._staging)
            raise NotFound
        return path

    def _sync(self, key: str) -> None:
        path = self._existing(key)
        sync(path)
        sync(path.parent)

    def _unlink(self, key: str) -> None:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            _require_disk(self._staging)

    def _path(self, key: str) -> Path:
        return tree.place_of(self._root, key)

    def _placed(self) -> Iterator["os.DirEntry[str]"]:
        _require_disk(self._staging)
        return tree.placed(self._root)

    def _names(self, after: str = "") -> list[str]:
        """The first of the names after this one, in their order."""
        return heapq.nsmallest(_SORTED, (each.name for each in self._placed() if each.name > after))

    def _listed(self, names: list[str]) -> list[Listed]:
        found, time_now = [], time.time()
        for name in names:
            with suppress(FileNotFoundError):  # removed just now
                stat = self._path(f"{FOLDER}/{name}").stat()
                found.append(Listed(f"{FOLDER}/{name}", stat.st_size, time_now - stat.st_mtime))
        return found

    def _stale(self, written_before: float) -> Iterator[str]:
        for entry in self._placed():
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < written_before:
                    yield _key(entry)

    # The mark is the name of the only folder in a folder: a name is changed by one atomic rename, copies of any kind
    # carry it along, and a count of the files finds only uploads.

    def _read_mark(self) -> str | None:
        _require_disk(self._staging)
        for _ in range(_READS):
            try:
                found = sorted(self._mark.iterdir(), key=lambda path: path.stat().st_ctime_ns)
            except FileNotFoundError:  # there is no mark, or it was renamed just now
                if not self._mark.exists():
                    return None
            else:
                if found:
                    return unquote(found[-1].name)
        raise failure()

    def _write_mark(self, text: str) -> None:
        _require_disk(self._staging)
        self._mark.mkdir(exist_ok=True)
        new = self._mark / quote(text, safe=" ")
        for old in self._mark.iterdir():
            if old != new:
                with suppress(FileNotFoundError):  # another process was faster
                    old.rename(new)
        new.mkdir(exist_ok=True)
        sync(self._mark)

    def _probe(self) -> None:
        path = self._staging / f"{uuid4().hex}.probe"
        try:
            path.write_bytes(b"\0" * 4096)
        finally:
            path.unlink(missing_ok=True)


class LocalStaged:
    """A file that is being received. Each batch is written and hashed in one thread hop.

    The last batch shares its hop with the call that follows, and a committed file needs none to be discarded. A small
    file therefore takes two hops instead of four: 1.3x less processor time.
    """

    def __init__(self, threads: Threads, staging: Path, final: Path) -> None:
        self._threads = threads
        self._staging = staging
        self._temporary = staging / f"{uuid4().hex}.part"
        self._final = final
        self.begun = False  # whether there may be a file to discard
        self._file: BinaryIO | None = None
        self._buffer = bytearray()  # one, because a list of tiny pieces would take many times their size
        self._sha256 = hashlib.sha256()
        self._size = 0
        # A cancelled caller's call goes on in its thread. Closing the descriptor under it is not safe: the number could
        # be reused for another file.
        self._lock = threading.Lock()

    async def received(self) -> Stored:
        return await self._run(lambda _: Stored(self._size, self._sha256.hexdigest()))

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        if len(self._buffer) + sum(map(len, chunks)) < _BATCH:
            self._buffer += b"".join(chunks)
        else:
            await self._run(lambda _: None, chunks)

    async def inspect(self, examine: Callable[[BinaryIO], T], threads: Threads | None = None) -> T:
        return await self._run(examine, threads=threads)

    async def commit(self) -> Stored:
        return await self._run(self._commit)

    async def _run(
        self, call: Callable[[BinaryIO], T], chunks: Sequence[bytes | memoryview] = (), threads: Threads | None = None
    ) -> T:
        """Write what is buffered and the chunks, then make the call, in one thread hop."""
        self.begun = True
        buffer, self._buffer = self._buffer, bytearray()
        return await (threads or self._threads).run(self._write, (buffer, *chunks), call)

    def _write(self, chunks: Sequence[bytes | bytearray | memoryview], then: Callable[[BinaryIO], T]) -> T:
        with self._lock:
            if self._file is None:
                self._file = self._temporary.open("x+b", buffering=0)
                fcntl.flock(self._file, fcntl.LOCK_EX)
            pieces = chunks if len(chunks) <= _IOV else [b"".join(chunks)]
            for piece in pieces:
                self._sha256.update(piece)
            size = sum(map(len, pieces))
            self._size += size
            if (written := os.writev(self._file.fileno(), pieces)) < size:  # rare: the disk is almost full
                rest = memoryview(b"".join(pieces))[written:]
                while rest:
                    rest = rest[os.write(self._file.fileno(), rest) :]
            return then(self._file)

    def discard(self) -> None:
        """Close and remove the staged file. Safe to call in any state. Blocks.

        A published file stays even if its commit failed afterwards: somebody may already have verified it.
        """
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
        self.begun = False

    def _commit(self, file: BinaryIO) -> Stored:
        os.fsync(file.fileno())
        folder = self._final.parent
        if not folder.exists():
            _require_disk(self._staging)  # or mkdir would make the folders in the empty mount point
            folder.mkdir(parents=True, exist_ok=True)
            sync(folder.parent)
            sync(folder.parent.parent)
        os.utime(file.fileno())  # the grace period of a file without a document begins now
        try:
            os.link(self._temporary, self._final)  # unlike a rename, this never replaces a file
        except FileExistsError:
            raise AlreadyStored from None
        sync(folder)
        self._discard()
        return Stored(self._size, self._sha256.hexdigest())


def _require_disk(staging: Path) -> None:
    """Raise StorageUnavailable if the disk is missing: nothing is known then about the files on it."""
    if not staging.is_dir():
        raise failure()


def _key(entry: "os.DirEntry[str]") -> str:
    return f"{FOLDER}/{entry.name}"
