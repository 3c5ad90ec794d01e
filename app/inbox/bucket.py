"""An inbox that is a prefix in a bucket. An object is whole as soon as it is listed; its ETag says which it is."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from app.errors import AlreadyStored, AppError, ConfigurationError, NotFound
from app.inbox.base import Changed, Found, Unusable
from app.inbox.names import REASON, REFUSED, passed_over
from app.settings.storage import Bucket
from app.storage.s3.errors import Refused, Unreachable
from app.storage.s3.objects import Objects
from app.telemetry import faults

log = structlog.get_logger()

COPY_TIMEOUT = 600.0  # seconds that the store may take to copy up to 5 GiB
_LIST = "list_objects_v2"


class BucketInbox:
    """Adapter of the Inbox port over a bucket, whose objects are moved by a copy and a removal.

    Both are conditional (`If-Match`): an object that is replaced meanwhile stays, where the store honours that.
    """

    settles = False

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._objects = Objects(bucket)

    async def open(self) -> None:
        probe = f"{REFUSED}/.probe"
        try:
            await self._objects.open()
            async for _ in self._objects.pages(_LIST, "", MaxKeys=1):
                break
            await self._objects.call("put_object", probe)
            await self._objects.call("delete_object", probe)
        except Refused as error:
            await self.close()
            raise ConfigurationError(f"INBOX_URL: bucket {self._bucket.name}: {error.reason}") from None
        except Unreachable as error:
            log.warning("inbox.away", reason=error.reason)

    async def close(self) -> None:
        await self._objects.close()

    async def look(self) -> AsyncIterator[list[Found]]:
        folders = list[str]()
        with _translated():
            async for page in self._objects.pages(_LIST, "", Delimiter="/"):
                yield [*self._files(page)]
                listed = (self._objects.key(each["Prefix"]) for each in page.get("CommonPrefixes", []))
                folders += [each.removesuffix("/") for each in listed if not passed_over(f"{each}file")]
            for folder in folders:
                async for page in self._objects.pages(_LIST, folder):
                    yield [*self._files(page)]

    async def read(self, file: Found) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._objects.read(file.name, 0, file.size, IfMatch=file.version):
                yield chunk

    async def move(self, file: Found, to: str, reason: str = "") -> None:
        source = {"Bucket": self._bucket.name, "Key": self._objects.path(file.name)}
        copied = {"CopySource": source, "CopySourceIfMatch": file.version}
        with _translated():
            await self._objects.call("copy_object", to, seconds=COPY_TIMEOUT, **copied)
            if reason:
                body = f"{reason}\n".encode()
                await self._objects.call("put_object", f"{to}{REASON}", Body=body, ContentType="text/plain")
            faults.hit("inbox.after_copy")
            with suppress(AlreadyStored, NotFound):  # replaced, or moved by another watcher
                await self._objects.call("delete_object", file.name, IfMatch=file.version)

    def _files(self, page: dict[str, Any]) -> Iterator[Found]:
        for each in page.get("Contents", []):
            name = self._objects.key(each["Key"])
            if not passed_over(name):
                yield Found(name, each["Size"], each["ETag"])


@contextmanager
def _translated() -> Iterator[None]:
    """Raise the port's errors for those of the storage. A precondition that fails means that it is another object."""
    try:
        yield
    except (AlreadyStored, NotFound):
        raise Changed from None
    except Unreachable as error:
        raise Unusable(error.reason) from error
    except AppError as error:
        raise Unusable(error.detail) from error
