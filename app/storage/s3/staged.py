"""A file on its way into the bucket.

A small one waits in memory and is put there by `commit`. A larger one goes out part by part while it arrives, and is
completed under its key before it is inspected: no document names it yet, so nobody sees it.
"""

import asyncio
import hashlib
import io
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, cast

import structlog

from app.errors import AppError, StorageUnavailable
from app.settings.storage import PART
from app.storage.base import Stored, T
from app.storage.s3.errors import PATIENCE, translated
from app.storage.s3.objects import Objects
from app.storage.threads import Threads

log = structlog.get_logger()

INLINE = 64 * 1024  # bytes that are hashed sooner than a thread is woken
READ_AHEAD = 1024**2
FAREWELL = 5.0  # seconds that cleaning up may take; the sweeper does the rest


class S3Staged:
    """Used by one task. `longest`: seconds from the first part to the commit."""

    def __init__(self, objects: Objects, key: str, threads: Threads, longest: float) -> None:
        self._objects = objects
        self._key = key
        self._threads = threads
        self._longest = longest
        self._buffer = bytearray()
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._multipart: _Multipart | None = None
        self._storing: asyncio.Task[object] | None = None
        self._committed = False

    async def received(self) -> Stored:
        return Stored(self._size, self._sha256.hexdigest())

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        if sum(map(len, chunks)) <= INLINE:
            parts = self._absorb(chunks)
        else:
            parts = await self._threads.run(lambda: self._absorb(chunks))
        for part in parts:
            if self._multipart is None:
                self._multipart = _Multipart(self._objects, self._key)
            await self._multipart.send(part, await self._md5(part))

    async def inspect(self, examine: Callable[[BinaryIO], T]) -> T:
        if self._multipart is None:
            return await self._threads.run(lambda: examine(io.BytesIO(self._buffer)))
        await self._store()
        reader = _Reader(self._objects, self._key, self._size, asyncio.get_running_loop())
        return await self._threads.run(lambda: examine(cast("BinaryIO", io.BufferedReader(reader, READ_AHEAD))))

    async def commit(self) -> Stored:
        await self._store()
        if self._multipart and self._multipart.age > self._longest:
            raise StorageUnavailable  # S3 dates it by its beginning: it could be taken for an orphan
        found = await self._objects.call("head_object", self._key)
        if found["ContentLength"] != self._size:
            log.error("storage.size_differs", key=self._key, sent=self._size, stored=found["ContentLength"])
            raise StorageUnavailable
        self._committed = True
        return await self.received()

    async def discard(self) -> None:
        """Remove what was not committed. Safe to call in any state."""
        if self._committed:
            return
        # What was sent off is waited for: overtaken by its removal, it would stay.
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        undo: list[Awaitable[object]] = [self._multipart.abort()] if self._multipart else []
        if self._storing is not None:
            undo.append(self._objects.call("delete_object", self._key, patience=FAREWELL))
        # Each by itself: what was completed, though its answer was lost, cannot be aborted.
        await asyncio.gather(*map(self._tried, undo))

    async def _tried(self, undo: Awaitable[object]) -> None:
        try:
            await undo
        except AppError:
            log.warning("storage.left_behind", key=self._key)

    async def _store(self) -> None:
        """Have the object whole under its key.

        Without If-None-Match: the SDK repeats a request whose answer was lost, and would find its own object there.
        """
        if self._storing is None:
            body = bytes(self._buffer)
            md5 = await self._md5(body)
            if self._multipart is not None:
                await self._multipart.send(body, md5)
                await self._multipart.sent()
                storing = self._multipart.complete()
            else:
                storing = self._objects.call("put_object", self._key, Body=body, ContentMD5=md5)
            self._storing = asyncio.create_task(storing)
        await asyncio.shield(self._storing)

    def _absorb(self, chunks: Sequence[bytes | memoryview]) -> list[bytes]:
        """Take bytes in, and give out the parts that are full. The last part is never empty."""
        for chunk in chunks:
            self._sha256.update(chunk)
            self._buffer += chunk
            self._size += len(chunk)
        parts = []
        while len(self._buffer) > PART:
            parts.append(bytes(memoryview(self._buffer)[:PART]))
            del self._buffer[:PART]
        return parts

    async def _md5(self, body: bytes) -> str:
        """The Content-MD5, which every store checks."""

        def digest() -> str:
            return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()

        return digest() if len(body) <= INLINE else await self._threads.run(digest)


class _Multipart:
    """A multipart upload. One part is on its way while the next one arrives."""

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects = objects
        self._key = key
        self._begun = time.monotonic()
        self._parts: list[dict[str, Any]] = []
        self._sending: asyncio.Task[dict[str, Any]] | None = None
        self._completed = False
        # A caller who goes away meanwhile must not take the id along: without it there is no aborting.
        self._id = asyncio.create_task(self._create())

    @property
    def age(self) -> float:
        return time.monotonic() - self._begun

    async def send(self, body: bytes, md5: str) -> None:
        await self.sent()
        number = len(self._parts) + 1
        self._sending = asyncio.create_task(self._call("upload_part", PartNumber=number, Body=body, ContentMD5=md5))

    async def sent(self) -> None:
        """Wait for the part on its way."""
        if self._sending is not None:
            answer = await asyncio.shield(self._sending)
            self._sending = None
            self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": answer["ETag"]})

    async def complete(self) -> dict[str, Any]:
        answer = await self._call("complete_multipart_upload", MultipartUpload={"Parts": self._parts})
        self._completed = True
        return answer

    async def abort(self) -> None:
        """Have what was sent forgotten, unless it is complete."""
        with suppress(AppError):
            await self.sent()
        if not self._completed:
            await self._call("abort_multipart_upload", patience=FAREWELL)

    async def _create(self) -> str:
        return str((await self._objects.call("create_multipart_upload", self._key))["UploadId"])

    async def _call(self, operation: str, **params: Any) -> dict[str, Any]:
        upload_id = await asyncio.shield(self._id)
        return await self._objects.call(operation, self._key, UploadId=upload_id, **params)


class _Reader(io.RawIOBase):
    """An object as a file for a thread. Each read is one request, made in the event loop."""

    def __init__(self, objects: Objects, key: str, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self._objects = objects
        self._key = key
        self._size = size
        self._loop = loop
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError("negative seek position")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = asyncio.run_coroutine_threadsafe(self._fetch(length), self._loop).result()
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    async def _fetch(self, length: int) -> bytes:
        async with translated(PATIENCE), self._objects.stream(self._key, self._position, length) as chunks:
            return b"".join([chunk async for chunk in chunks])
