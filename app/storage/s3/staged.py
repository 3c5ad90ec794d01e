"""A file that is being received into the bucket.

A small file is buffered in memory until it is committed. A larger one is sent in parts while it arrives, and completed
under its key before it is inspected: no document names it yet, so that nobody sees it.
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
from app.limiter import T
from app.settings.storage import PART
from app.storage.base import Stored
from app.storage.disk import Threads
from app.storage.s3.errors import REQUEST_TIMEOUT, translated
from app.storage.s3.objects import Objects

log = structlog.get_logger()

INLINE = 64 * 1024  # bytes that take less time to hash than waking a thread does
_READ_AHEAD = 1024**2  # bytes that inspecting a stored object fetches at a time
_CLEANUP_TIMEOUT = 5.0  # seconds; what is left behind, upkeep removes


def content_md5(body: bytes) -> str:
    """Return the value of the header Content-MD5."""
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class S3Staged:
    """A Staged file, used by one task. `longest`: seconds that may pass from the first part to the commit.

    One part of a multipart upload is being sent while the next one arrives.
    """

    def __init__(self, objects: Objects, key: str, threads: Threads, longest: float) -> None:
        self._objects = objects
        self._key = key
        self._threads = threads
        self._longest = longest
        self._begun = time.monotonic()
        self._buffer = bytearray()
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._upload: asyncio.Task[dict[str, Any]] | None = None  # the multipart upload, if there is one
        self._parts: list[dict[str, Any]] = []  # that have been sent
        self._sending: asyncio.Task[dict[str, Any]] | None = None
        self._storing: asyncio.Task[object] | None = None
        self._committed = False

    async def received(self) -> Stored:
        return Stored(self._size, self._sha256.hexdigest())

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        if sum(map(len, chunks)) <= INLINE:
            parts = self._absorb(chunks)
        else:
            parts = await self._threads.run(self._absorb, chunks)
        for part in parts:
            await self._send(part)

    async def inspect(self, examine: Callable[[BinaryIO], T], threads: Threads | None = None) -> T:
        threads = threads or self._threads
        if self._upload is None:
            return await threads.run(examine, io.BytesIO(self._buffer))
        await self._store()
        reader = _Reader(self._objects, self._key, self._size, asyncio.get_running_loop())
        return await threads.run(examine, cast("BinaryIO", io.BufferedReader(reader, _READ_AHEAD)))

    async def commit(self) -> Stored:
        await self._store()
        if self._upload and time.monotonic() - self._begun > self._longest:
            raise StorageUnavailable  # S3 dates the object by its first part: upkeep could take it for an orphan
        found = await self._objects.call("head_object", self._key)
        if found["ContentLength"] != self._size:
            log.error("storage.size_differs", key=self._key, sent=self._size, stored=found["ContentLength"])
            raise StorageUnavailable
        self._committed = True
        return await self.received()

    async def discard(self) -> None:
        """Remove what was sent, unless it was committed. Safe to call in any state."""
        if self._committed:
            return
        undo: list[Awaitable[object]] = []
        if self._storing is not None:
            # Wait for requests that store the object: one that arrived after its removal would leave it behind.
            await asyncio.gather(self._storing, return_exceptions=True)
            undo.append(self._objects.call("delete_object", self._key, seconds=_CLEANUP_TIMEOUT))
        if self._upload is not None and (self._storing is None or self._storing.exception()):
            undo.append(self._abort())
        # Each on its own: an upload that was completed, but whose answer was lost, cannot be aborted.
        for error in await asyncio.gather(*undo, return_exceptions=True):
            if isinstance(error, BaseException):
                log.warning("storage.left_behind", key=self._key, reason=type(error).__name__)

    async def _store(self) -> None:
        """Store the complete object under its key, once.

        If-None-Match is not sent: the SDK repeats a request whose answer was lost, and would be refused because of its
        own object.
        """
        if self._storing is None:
            body = bytes(self._buffer)
            if self._upload is None:
                storing = self._objects.call("put_object", self._key, Body=body, ContentMD5=await self._md5(body))
            else:
                await self._send(body)
                await self._sent()
                storing = self._call("complete_multipart_upload", MultipartUpload={"Parts": self._parts})
            self._storing = asyncio.create_task(storing)
        await asyncio.shield(self._storing)

    def _absorb(self, chunks: Sequence[bytes | memoryview]) -> list[bytes]:
        """Buffer and hash bytes, and return the parts that are full. Keeps at least one byte, for the last part."""
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
        """Return the Content-MD5 header, which every store checks."""
        return content_md5(body) if len(body) <= INLINE else await self._threads.run(content_md5, body)

    async def _send(self, part: bytes) -> None:
        """Begin to send the next part, once the one before has been sent."""
        if self._upload is None:
            self._begun = time.monotonic()
            # A task of its own: if the caller is cancelled, the upload's id is still needed to abort it.
            self._upload = asyncio.create_task(self._objects.call("create_multipart_upload", self._key))
        md5 = await self._md5(part)
        await self._sent()
        number = len(self._parts) + 1
        self._sending = asyncio.create_task(self._call("upload_part", PartNumber=number, Body=part, ContentMD5=md5))

    async def _sent(self) -> None:
        """Wait until the part that is being sent has arrived."""
        if self._sending is not None:
            answer = await asyncio.shield(self._sending)
            self._sending = None
            self._parts.append({"PartNumber": len(self._parts) + 1, "ETag": answer["ETag"]})

    async def _abort(self) -> None:
        """Remove the parts."""
        with suppress(AppError):
            await self._sent()
        await self._call("abort_multipart_upload", seconds=_CLEANUP_TIMEOUT)

    async def _call(self, operation: str, **params: Any) -> dict[str, Any]:
        """Perform an operation on the multipart upload."""
        assert self._upload is not None
        upload = await asyncio.shield(self._upload)
        return await self._objects.call(operation, self._key, UploadId=upload["UploadId"], **params)


class _Reader(io.RawIOBase):
    """A seekable file over an object, to be read in a thread. Each read is one request, made in the event loop."""

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
        async with translated(REQUEST_TIMEOUT):
            return b"".join([chunk async for chunk in self._objects.read(self._key, self._position, length)])
