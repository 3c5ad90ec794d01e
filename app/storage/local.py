"""Files on a local disk: received in a staging folder, synced, then linked under their key.

Layout: `<root>/staging/<random>.part` while a file is received, `<root>/<folder>/<xx>/<name>` once committed. xx is the
last two characters of the name, the random end of a UUIDv7, which keeps the folders small. `<root>/mark` has the mark.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ParamSpec
from uuid import uuid4

from app.errors import AlreadyStored, NotFound, StorageFull, StorageUnavailable
from app.storage import scratch
from app.storage.base import FOLDER, Stored, T
from app.storage.durable import sync
from app.storage.mark import FolderMark
from app.storage.threads import Threads

P = ParamSpec("P")

CHUNK = 512 * 1024  # bytes that a download reads per thread hop: 1.25x the throughput of 256 KiB; 1 MiB is no faster
BATCH = 256 * 1024  # bytes that justify a thread hop of their own; fewer are buffered until the next one
PAGE = 500  # keys listed in one thread hop
_IOV = min(os.sysconf("SC_IOV_MAX"), 1024)


class LocalStorage:
    """Adapter of the Storage port over one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / "staging"
        self._mark = FolderMark(root / "mark")
        self._staging.mkdir(parents=True, exist_ok=True)
        self._threads = Threads()

    async def open(self) -> None:
        """Nothing to do: the constructor has made the folder."""

    async def close(self) -> None:
        self._threads.close()

    @asynccontextmanager
    async def create(self, key: str) -> AsyncIterator["LocalStaged"]:
        staged = LocalStaged(self, self._staging / f"{uuid4().hex}.part", self._path(key))
        try:
            yield staged
        finally:
            if staged.begun:
                # Shielded: a client that disconnects cancels this task, and must leave nothing behind.
                await asyncio.shield(self.run(staged.discard))

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        file = await self.run(lambda: _Opened(self._existing(key)))
        try:
            while length > 0 and (chunk := await self.run(file.read, start, min(CHUNK, length))):
                start, length = start + len(chunk), length - len(chunk)
                yield chunk
        finally:
            await asyncio.shield(self.run(file.close))

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        yield await self.run(self._existing, key)

    async def sync(self, key: str) -> None:
        await self.run(self._sync, key)

    async def delete(self, key: str) -> None:
        await self.run(self._unlink, key)

    async def stale(self, older_than: float) -> AsyncIterator[list[str]]:
        await self.run(scratch.clear, self._staging, older_than)
        keys = self._stale(time.time() - older_than)
        while batch := await self.run(lambda: list(islice(keys, PAGE))):
            yield batch

    async def sample(self) -> list[str]:
        return await self.run(lambda: [_key(path) for path in islice(self._files(), PAGE)])

    async def read_mark(self) -> str | None:
        return await self.run(self._read_mark)

    async def write_mark(self, text: str) -> None:
        await self.run(self._write_mark, text)

    async def check(self) -> None:
        await self.run(self._probe)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in the storage's threads. Raises StorageFull or StorageUnavailable for an OSError."""

        def translated() -> T:
            with _translated():
                return call(*args, **kwargs)

        return await self._threads.run(translated)

    def _existing(self, key: str) -> Path:
        """Return the path of a file. Raises NotFound if the file is missing, StorageUnavailable if the disk is."""
        path = self._path(key)
        if not path.exists():
            self.require_disk()
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
            self.require_disk()

    def require_disk(self) -> None:
        """Raise StorageUnavailable if the disk is missing: nothing is known then about the files on it."""
        if not self._staging.is_dir():
            raise StorageUnavailable

    def _path(self, key: str) -> Path:
        folder, name = key.split("/")
        return self._root / folder / name[-2:] / name

    def _files(self) -> Iterator[Path]:
        self.require_disk()
        return self._root.glob(f"{FOLDER}/??/*")

    def _stale(self, written_before: float) -> Iterator[str]:
        for path in self._files():
            try:
                if path.stat().st_mtime < written_before:
                    yield _key(path)
            except FileNotFoundError:
                continue

    def _read_mark(self) -> str | None:
        self.require_disk()
        return self._mark.read()

    def _write_mark(self, text: str) -> None:
        self.require_disk()
        self._mark.write(text)

    def _probe(self) -> None:
        path = self._staging / f"{uuid4().hex}.probe"
        try:
            path.write_bytes(b"\0" * 4096)
        finally:
            path.unlink(missing_ok=True)


class _Opened:
    """A file being read. It is locked because a cancelled reader's call goes on in its thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, start: int, length: int) -> bytes:
        with self._lock:
            return os.pread(self._file.fileno(), length, start)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class LocalStaged:
    """A file that is being received. Each batch is written and hashed in one thread hop.

    The last batch shares its hop with the call that follows, and a committed file needs none to be discarded. A small
    file therefore takes two hops instead of four: 1.3x less processor time.
    """

    def __init__(self, storage: LocalStorage, temporary: Path, final: Path) -> None:
        self._storage = storage
        self._temporary = temporary
        self._final = final
        self.begun = False  # whether there may be a file to discard
        self._file: BinaryIO | None = None
        self._buffered: list[bytes | memoryview] = []
        self._sha256 = hashlib.sha256()
        self._size = 0
        # A cancelled caller's call goes on in its thread. Closing the descriptor under it is not safe: the number could
        # be reused for another file.
        self._lock = threading.Lock()

    async def received(self) -> Stored:
        return await self._run(lambda _: Stored(self._size, self._sha256.hexdigest()))

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        self._buffered += chunks
        if sum(map(len, self._buffered)) >= BATCH:
            await self._run(lambda _: None)

    async def inspect(self, examine: Callable[[BinaryIO], T]) -> T:
        return await self._run(examine)

    async def commit(self) -> Stored:
        return await self._run(self._commit)

    async def _run(self, call: Callable[[BinaryIO], T]) -> T:
        """Write what is buffered, then make the call, in one thread hop."""
        chunks, self._buffered = self._buffered, []
        self.begun = True

        def locked() -> T:
            with self._lock:
                file = self._opened()
                self._write(file, chunks)
                return call(file)

        return await self._storage.run(locked)

    def discard(self) -> None:
        """Close and remove the staged file. Safe to call in any state.

        A published file stays even if its commit failed afterwards: somebody may already have verified it.
        """
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
        self.begun = False

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._temporary.open("x+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def _write(self, file: BinaryIO, chunks: Sequence[bytes | memoryview]) -> None:
        descriptor = file.fileno()
        for at in range(0, len(chunks), _IOV):
            group = chunks[at : at + _IOV]
            for chunk in group:
                self._sha256.update(chunk)
            size = sum(map(len, group))
            written = os.writev(descriptor, group)
            if written < size:  # rare: the disk is almost full
                rest = memoryview(b"".join(group))[written:]
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            self._size += size

    def _commit(self, file: BinaryIO) -> Stored:
        os.fsync(file.fileno())
        folder = self._final.parent
        if not folder.exists():
            self._storage.require_disk()  # or mkdir would make the folders in the empty mount point
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


def _key(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.name}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (StorageFull if full else StorageUnavailable) from error
