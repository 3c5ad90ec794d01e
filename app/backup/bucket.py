"""A target in a bucket. Its lock is an object that is written again while its holder lives."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from app.backup import BackupError, manifest
from app.backup.target import BUSY, FILES, Entry
from app.errors import AppError, ConfigurationError
from app.settings.storage import Bucket
from app.storage.base import Storage
from app.storage.s3.errors import Refused, Unreachable
from app.storage.s3.objects import Objects
from app.storage.s3.storage import age

LOCK = "lock"
LEASE = 60.0  # seconds for which the lock of a dead process is respected
_LIST = "list_objects_v2"


class BucketTarget:
    """Adapter of Target over a prefix in a bucket, in which `storage` is, too."""

    def __init__(self, bucket: Bucket, storage: Storage) -> None:
        self.storage = storage
        self._objects = Objects(bucket)

    async def open(self) -> None:
        try:
            await self._objects.open()
        except Refused as error:
            raise ConfigurationError(f"TARGET: {error.reason}") from None
        await self.storage.open()

    async def close(self) -> None:
        await self._objects.close()
        await self.storage.close()

    async def entries(self, folder: str) -> AsyncIterator[list[Entry]]:
        async for page in self._objects.pages(_LIST, folder):
            yield [Entry(self._objects.key(each["Key"]), each["Size"]) for each in page.get("Contents", [])]

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Callable[[], None]]:
        lock = _Lock(self._objects)
        await lock.take()
        renewing = asyncio.create_task(lock.renew())
        try:
            await self._clear()
            yield lock.confirm
        finally:
            renewing.cancel()
            await lock.release()

    async def _clear(self) -> None:
        for folder in (FILES, manifest.FOLDER):
            async for page in self._objects.pages("list_multipart_uploads", folder):
                for upload in page.get("Uploads", []):
                    key = self._objects.key(upload["Key"])
                    with suppress(Unreachable):  # the store has removed it meanwhile
                        await self._objects.call("abort_multipart_upload", key, UploadId=upload["UploadId"])


class _Lock:
    """One process's lock: it is written first, and then gives way to any other. Two that come at once may both do."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._key = f"{LOCK}/{uuid4()}"
        self._written_at = 0.0

    async def take(self) -> None:
        """Raises BackupError."""
        await self._write()
        async for page in self._objects.pages(_LIST, LOCK):
            for each in page.get("Contents", []):
                key = self._objects.key(each["Key"])
                if key == self._key:
                    continue
                if age(page, each["LastModified"]) < LEASE:
                    await self.release()
                    raise BackupError(BUSY)
                await self._objects.call("delete_object", key)

    async def renew(self) -> None:
        """Again and again, until cancelled."""
        while True:
            await asyncio.sleep(LEASE / 6)
            with suppress(AppError):
                await self._write()

    def confirm(self) -> None:
        """Raises BackupError if others may have taken the lock for a dead process's."""
        if time.monotonic() - self._written_at > LEASE / 2:
            raise BackupError("the target could not be reached for so long that another backup may have begun")

    async def release(self) -> None:
        with suppress(AppError):
            await self._objects.call("delete_object", self._key)

    async def _write(self) -> None:
        begun = time.monotonic()
        await self._objects.call("put_object", self._key, Body=b"")
        self._written_at = begun
