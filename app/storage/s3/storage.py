"""Adapter of the Storage port, of Presigner and of Sharer over a bucket. An object's name is the prefix and the key."""

import asyncio
import fcntl
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import structlog

from app.errors import AlreadyStored, AppError, ConfigurationError, NotFound, PayloadTooLarge, StorageUnavailable
from app.settings.storage import MAX_PUT, Bucket
from app.storage.base import CHUNK, FOLDER, Announced, Listed, Presigned
from app.storage.disk import Threads, clear
from app.storage.s3.errors import REQUEST_TIMEOUT, Refused, Unreachable
from app.storage.s3.objects import PROBE, SMALL_CHUNK, Objects
from app.storage.s3.staged import S3Staged, content_md5

log = structlog.get_logger()

_Page = dict[str, Any]

CHECK_TIMEOUT = 1.8  # seconds; must be less than what a readiness check may take
MARK = f"{FOLDER}/mark"  # beside the files, whose names are ids, so that a policy for their folder allows it
_MARK_SIZE = 1024  # bytes of the mark that are read
_WHOLE = 2**62  # bytes; more than any object has
_NOTES_AT_ONCE = 16


class S3Storage:
    """Files in one bucket, which a `setting` names. `copies`: a folder for local copies. `longest`: seconds that
    receiving a file may take.

    S3 dates an object made of parts by the beginning of its upload, not by its completion. So that a slow upload is
    never taken for an orphan, objects of parts count as `longest` seconds younger, and an upload that took longer than
    that is not committed.
    """

    def __init__(self, bucket: Bucket, *, copies: Path, longest: float, setting: str = "STORAGE_URL") -> None:
        self._bucket = bucket
        self._objects = Objects(bucket)
        self._copies = copies
        self._longest = longest
        self._setting = setting
        self._threads = Threads()

    async def open(self) -> None:
        self._copies.mkdir(parents=True, exist_ok=True)
        try:
            await self._objects.open()
            await self._objects.probe(REQUEST_TIMEOUT, writing=True)
        except Refused as error:
            await self.close()
            raise ConfigurationError(f"{self._setting}: bucket {self._bucket.name}: {error.reason}") from None
        except Unreachable as error:
            log.warning("storage.away", reason=error.reason)

    async def close(self) -> None:
        await self._objects.close()
        self._threads.close(cancel=False)

    @asynccontextmanager
    async def create(self, key: str) -> AsyncIterator[S3Staged]:
        staged = S3Staged(self._objects, key, self._threads, self._longest)
        try:
            yield staged
        finally:
            # Shielded: a client that disconnects cancels this task, and must leave nothing behind.
            await asyncio.shield(staged.discard())

    def read(self, key: str, start: int, length: int, *, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        return self._objects.read(key, start, length, min(chunk, SMALL_CHUNK))

    @asynccontextmanager
    async def local_copy(self, key: str) -> AsyncIterator[Path]:
        copy = await self._threads.run(lambda: NamedTemporaryFile(dir=self._copies))  # noqa: SIM115 - it is closed below
        try:
            fcntl.flock(copy, fcntl.LOCK_EX)  # or `stale` would remove it as a dead process's
            async for chunk in self.read(key, 0, _WHOLE):
                await asyncio.shield(self._threads.run(copy.write, chunk))
            await asyncio.shield(self._threads.run(copy.flush))
            yield Path(copy.name)
        finally:
            with suppress(AppError):  # closing flushes again what a full disk refused
                await asyncio.shield(self._threads.run(copy.close))

    async def sync(self, key: str) -> None:
        """Nothing to do: S3 is durable and read-after-write consistent once it has answered a PUT.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
        """

    async def delete(self, key: str) -> None:
        with suppress(NotFound):
            await self._objects.call("delete_object", key)

    async def presign(self, key: str, file: Announced, seconds: int) -> Presigned:
        if file.size > MAX_PUT:
            raise PayloadTooLarge(f"The storage takes at most {MAX_PUT} bytes in one request.")
        params = {"ContentLength": file.size, "ContentType": file.content_type, "IfNoneMatch": "*"}
        headers = {"Content-Type": file.content_type, "If-None-Match": "*"}
        if file.sha256:
            params["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = b64encode(bytes.fromhex(file.sha256)).decode()
        url = await self._objects.url("put_object", key, seconds, **params)
        return Presigned(self._objects.path(key), url, headers)

    async def presign_get(self, key: str, seconds: int) -> str | None:
        """None for an endpoint that perhaps only the service can reach: AWS's own, and a public one, are for all."""
        if self._bucket.endpoint and not self._bucket.public_endpoint:
            return None
        return await self._objects.url("get_object", key, seconds)

    async def stale(self, older_than: float) -> AsyncIterator[list[str]]:
        await self._threads.run(clear, self._copies, older_than)
        async for page in self._objects.pages("list_objects_v2"):
            yield [key for key, found in self._files(page) if self._age(page, found) > older_than]
        async for page in self._objects.pages("list_multipart_uploads"):
            for upload in page.get("Uploads", []):
                if age(page, upload["Initiated"]) > older_than + self._longest:
                    key = self._objects.key(upload["Key"])
                    with suppress(Unreachable):  # somebody else was faster
                        await self._objects.call("abort_multipart_upload", key, UploadId=upload["UploadId"])

    async def listing(self) -> AsyncIterator[list[Listed]]:
        async for page in self._objects.pages("list_objects_v2"):
            yield [Listed(key, found["Size"], self._age(page, found)) for key, found in self._files(page)]

    async def sample(self) -> list[str]:
        async for page in self._objects.pages("list_objects_v2"):
            if keys := [key for key, _ in self._files(page)]:
                return keys
        return []

    async def read_mark(self) -> str | None:
        try:
            return b"".join([chunk async for chunk in self.read(MARK, 0, _MARK_SIZE)]).decode("utf-8", "replace")
        except NotFound:
            return None

    async def write_mark(self, text: str) -> None:
        body = text.encode()
        await self._objects.call("put_object", MARK, Body=body, ContentMD5=content_md5(body), ContentType="text/plain")

    async def write_note(self, name: str, text: str) -> None:
        body = text.encode()
        with suppress(AlreadyStored):
            await self._objects.call(
                "put_object",
                name,
                Body=body,
                ContentMD5=content_md5(body),
                ContentType="application/json",
                IfNoneMatch="*",
            )

    async def notes(self, folder: str, after: str = "") -> AsyncIterator[str]:
        async for page in self._objects.pages("list_objects_v2", folder):
            names = [self._objects.key(each["Key"]) for each in page.get("Contents", [])]
            names = [name for name in names if name > f"{folder}/{after}"]
            for start in range(0, len(names), _NOTES_AT_ONCE):
                for text in await asyncio.gather(*map(self._note, names[start : start + _NOTES_AT_ONCE])):
                    yield text

    async def _note(self, name: str) -> str:
        return b"".join([chunk async for chunk in self.read(name, 0, _WHOLE)]).decode("utf-8", "replace")

    async def check(self) -> None:
        """Raise unless the bucket answers. Only `open` tries whether it accepts a file, once."""
        try:
            await self._objects.probe(CHECK_TIMEOUT, writing=False)
        except Unreachable as error:
            raise StorageUnavailable(error.reason) from error

    def _files(self, page: _Page) -> Iterator[tuple[str, dict[str, Any]]]:
        """The keys of a page, and what is said of each."""
        for each in page.get("Contents", []):
            if (key := self._objects.key(each["Key"])) not in (MARK, PROBE):
                yield key, each

    def _age(self, page: _Page, found: dict[str, Any]) -> float:
        of_parts = "-" in found["ETag"]  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        return age(page, found["LastModified"]) - (self._longest if of_parts else 0)


def age(page: _Page, written: datetime) -> float:
    """Return an object's age in seconds by the storage's clock. S3 dates to the second, so this rounds down."""
    now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - written).total_seconds() - 1
