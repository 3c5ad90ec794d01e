"""The SDK's client for one bucket: operations by their S3 names, on our keys."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from app.settings.storage import Bucket
from app.storage.base import FOLDER
from app.storage.s3.errors import REQUEST_TIMEOUT, code_of, creating_client, translated

PROBE = f"{FOLDER}/probe"  # empty, and no file: one that is left behind goes with the next start
SMALL_CHUNK = 64 * 1024  # bytes; with the SDK's read-ahead, a client that does not read occupies about 1 MiB


class Objects:
    """One bucket, through one client. Every method that sends a request raises what `translated` raises."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._folder = self.path(f"{FOLDER}/")
        self._client: Any = None
        self._signer: Any = None
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Create the client. Raises Refused."""
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=2,
            read_timeout=REQUEST_TIMEOUT,
            max_pool_connections=0,  # no limit: callers are limited where they begin
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": self._bucket.addressing or ("path" if self._bucket.endpoint else "auto")},
            # Signatures and Content-MD5 already protect the bytes, and not every store supports the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        async with creating_client():
            if self._bucket.verify is True:
                # The SDK reads the bundle with its first request, and would then report a failed connection.
                bundle = get_session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
                ssl.create_default_context(cafile=bundle)
            self._client = await self._connect(self._bucket.endpoint, config)
            public = self._bucket.public_endpoint
            self._signer = await self._connect(public, config) if public else self._client

    async def close(self) -> None:
        await self._opened.aclose()

    async def _connect(self, endpoint: str | None, config: AioConfig) -> Any:
        client = get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._bucket.region,
            verify=None if self._bucket.verify is True else self._bucket.verify,  # None: the SDK reads AWS_CA_BUNDLE
            config=config,
        )
        return await self._opened.enter_async_context(client)

    def path(self, key: str) -> str:
        """Return the name of a key's object in the bucket."""
        return self._bucket.prefix + key

    async def call(
        self, operation: str, key: str, *, seconds: float = REQUEST_TIMEOUT, **params: Any
    ) -> dict[str, Any]:
        """Perform an operation on one object and return S3's answer."""
        async with translated(seconds):
            answer: dict[str, Any] = await getattr(self._client, operation)(
                Bucket=self._bucket.name, Key=self.path(key), **params
            )
        return answer

    async def url(self, operation: str, key: str, seconds: int, **params: Any) -> str:
        """Return a signed URL of the public endpoint that lets anybody perform the operation with these params."""
        params |= {"Bucket": self._bucket.name, "Key": self.path(key)}
        async with translated():  # credentials may have to be fetched
            return str(await self._signer.generate_presigned_url(operation, params, seconds))

    async def probe(self, seconds: float, *, writing: bool) -> None:
        """Check that the bucket answers and, if `writing`, that it accepts a file and can be swept.

        Lists objects, because the answer to HeadBucket has no error code.
        """
        name, probe = self._bucket.name, self.path(PROBE)
        async with translated(seconds, quiet=True):
            await self._client.list_objects_v2(Bucket=name, Prefix=self._folder, MaxKeys=1)
            if writing:
                await self._client.put_object(Bucket=name, Key=probe)
                await self._client.delete_object(Bucket=name, Key=probe)
                await self._client.list_multipart_uploads(Bucket=name, Prefix=self._folder, MaxUploads=1)

    async def read(
        self, key: str, start: int, length: int, most: int = SMALL_CHUNK, **params: Any
    ) -> AsyncIterator[bytes]:
        """Yield a span of an object in chunks that arrive one by one; there are none if it is empty or beyond the end.

        For an empty span one byte is requested, to find out whether the object exists.
        """
        span = f"bytes={start}-{start + max(1, length) - 1}"
        async with translated():
            try:
                name = self.path(key)
                answer = await self._client.get_object(Bucket=self._bucket.name, Key=name, Range=span, **params)
            except ClientError as error:
                if code_of(error) != "InvalidRange":
                    raise
                return
        async with answer["Body"] as body:
            while length > 0:
                async with translated():
                    chunk: bytes = await body.read(most)
                if not chunk:
                    return
                yield chunk

    async def pages(self, operation: str, folder: str = FOLDER, **params: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a listing of one of our folders; of "", of all that is under the prefix."""
        paginator, prefix = self._client.get_paginator(operation), self.path(folder and f"{folder}/")
        pages = aiter(paginator.paginate(Bucket=self._bucket.name, Prefix=prefix, **params))
        while True:
            async with translated():
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    def key(self, path: str) -> str:
        """Return the key of a listed object."""
        return path.removeprefix(self._bucket.prefix)
