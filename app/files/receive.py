"""Receiving a file: stream, staged, verified, published.

There are three ways in. A multipart form and a PUT bring the bytes here (`receiving`); with a presigned URL they are in
the storage already (`stored`). Whichever it is, the file is verified, and survives a power cut, before its document is
UPLOADED.
"""

import hashlib
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from uuid_utils.compat import uuid7

from app.errors import (
    ContentTypeMismatch,
    NotFound,
    Sha256Mismatch,
    SizeMismatch,
    UnsafeArchive,
    UnsupportedMediaType,
    UploadMissing,
)
from app.files.models import File, key_of
from app.files.pace import paced
from app.files.sniffing import sniff, sniff_unless_archive
from app.limiter import Limiter, T, Usage
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.storage.base import Staged, Storage, Stored
from app.storage.disk import Threads
from app.telemetry import faults

BATCH = 512 * 1024  # bytes that are passed to the storage at a time
UPLOAD_TIMEOUT = 60.0  # seconds that an upload waits while its owner is granted none
SMALL = 4096  # bytes; an object for each smaller piece could take more memory than what it holds

REJECTIONS = (SizeMismatch, ContentTypeMismatch, Sha256Mismatch, UnsafeArchive, UnsupportedMediaType)


class Batch:
    """Bytes on their way to the storage, in few pieces whatever the pieces in which they came."""

    def __init__(self) -> None:
        self.pending = 0
        self._pieces: list[bytearray | memoryview] = []

    def feed(self, data: bytes | memoryview) -> None:
        """Append bytes. Small ones are copied together."""
        self.pending += len(data)
        if len(data) >= SMALL:
            self._pieces.append(memoryview(data))
        elif self._pieces and isinstance(last := self._pieces[-1], bytearray):
            last += data
        else:
            self._pieces.append(bytearray(data))

    def take(self) -> list[memoryview]:
        """Return the bytes since the last call."""
        pieces, self._pieces, self.pending = self._pieces, [], 0
        return [memoryview(piece) for piece in pieces]


class Body(Protocol):
    """What a request's body is fed to as it arrives: a Batch, or a parser that finds the file in it."""

    @property
    def pending(self) -> int:
        """Bytes of the file since the last `take`."""

    def feed(self, data: bytes, /) -> None:
        """Read on. Raises what is wrong with the body, as soon as it shows."""

    def take(self) -> list[memoryview]:
        """Return the file's bytes since the last call."""


class Sent(Body, Protocol):
    """A file that is sent to become a document, and what its sender states about it."""

    filename: str

    def finish(self) -> dict[str, bytes]:
        """Return what came beside the file, by name, once all is here. Raises what is wrong with the whole."""


class Receiver:
    """Receives files within the limits that all uploads of a process share: their number, and the pace of each."""

    def __init__(self, storage: Storage, reserve: Reserve, settings: Settings) -> None:
        self._storage = storage
        self._reserve = reserve
        self._settings = settings
        self._uploads = Limiter(settings.upload_slots, UPLOAD_TIMEOUT)
        self._completions = Limiter(settings.upload_slots, UPLOAD_TIMEOUT)
        cores = os.cpu_count() or 1
        self._examinations = Limiter(cores, UPLOAD_TIMEOUT)
        self._threads = Threads(cores, "examine", low_priority=True)

    @property
    def usage(self) -> Usage:
        """How many files are being received, and how many can be."""
        return self._uploads.usage

    @asynccontextmanager
    async def receiving(
        self, owner_id: UUID, key: str, body: Body, stream: AsyncIterator[bytes], *, longest: float = math.inf
    ) -> AsyncIterator[Staged]:
        """Feed the whole stream to the body, for up to `longest` seconds, and the file in it to the storage.

        In the block all bytes are here: verify them, then commit. Leaving it otherwise, for any reason, leaves nothing
        behind. Raises RequestTimeout, TooBusy, StorageFull, StorageUnavailable, and what the body raises.
        """
        limits = self._settings
        longest = min(longest, limits.upload_max_seconds)
        self._reserve.require()
        async with self._uploads.acquire(owner_id), self._storage.create(key) as staged:
            async for chunk in paced(stream, limits.upload_idle_seconds, limits.upload_min_rate, longest):
                body.feed(chunk)
                if body.pending >= BATCH:
                    self._reserve.require()  # those that have begun before it was reached could fill it
                    await staged.write(body.take())
            await staged.write(body.take())
            yield staged

    async def chunks(self, owner_id: UUID, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on a stream that somebody else stores, within the same limits. Raises RequestTimeout, TooBusy,
        StorageFull."""
        limits = self._settings
        async with self._uploads.acquire(owner_id):
            async for chunk in paced(
                stream, limits.upload_idle_seconds, limits.upload_min_rate, limits.upload_max_seconds
            ):
                self._reserve.require()
                yield chunk

    async def file(
        self, owner_id: UUID, sent: Sent, stream: AsyncIterator[bytes], finish: Callable[[], T]
    ) -> tuple[File, T]:
        """Receive, examine and store a file under an id of its own. `finish` is called once all is here.

        A failure leaves nothing behind, or at worst a file without a row, which upkeep removes. Raises what `receiving`
        and `examined` raise, and `finish`.
        """
        file_id = uuid7()
        async with self.receiving(owner_id, key_of(file_id), sent, stream) as staged:
            finished = finish()
            content_type = await self.examined(owner_id, staged)
            faults.hit("upload.after_temp")
            stored = await staged.commit()
        faults.hit("upload.after_rename")
        return File(file_id, key_of(file_id), content_type, stored.size, stored.sha256), finished

    async def examined(self, owner_id: UUID, staged: Staged) -> str:
        """Return the content type of a received file. Raises what `sniff` raises, TooBusy and StorageUnavailable.

        To inflate an archive takes up to a second of a core. In the storage's threads, it would hold up all downloads.
        """
        if content_type := await staged.inspect(sniff_unless_archive):
            return content_type
        async with self._examinations.acquire(owner_id):
            return await staged.inspect(sniff, self._threads)

    async def stored(self, owner_id: UUID, expected: File) -> File:
        """Verify a file that is in the storage already, and return it as it is.

        Raises UploadMissing, one of REJECTIONS if the file is not the expected one, TooBusy, StorageFull,
        StorageUnavailable.
        """
        async with self._completions.acquire(owner_id):
            try:
                if await self.has_byte(expected.key, expected.size):  # before the copy: it may be far larger
                    raise SizeMismatch
                await self._storage.sync(expected.key)
                async with self._storage.local_copy(expected.key) as path, self._examinations.acquire(owner_id):
                    return await self._threads.run(_examined, path, expected)
            except NotFound:
                raise UploadMissing from None

    def close(self) -> None:
        """Examine no more files."""
        self._threads.close()

    async def has_byte(self, key: str, position: int) -> bool:
        """Return whether a stored file has a byte at the position. Raises NotFound, StorageUnavailable."""
        return bool([chunk async for chunk in self._storage.read(key, position, 1)])


def _examined(path: Path, expected: File) -> File:
    """Return the file as it is. Raises one of REJECTIONS if it differs from what was expected. Blocks."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        compare(expected, Stored(file.tell(), sha256))
        content_type = sniff(file)
    if content_type != expected.content_type:
        raise ContentTypeMismatch(f"The file is {content_type}.")
    return replace(expected, sha256=sha256)


def compare(expected: File, received: Stored) -> None:
    """Raise SizeMismatch or Sha256Mismatch unless what was received is the expected file, as far as that is known."""
    if received.size != expected.size:
        raise SizeMismatch
    if expected.sha256 not in {None, received.sha256}:
        raise Sha256Mismatch
