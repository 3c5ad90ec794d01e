"""The bucket, as the SDK gives it: calls by their S3 names, under keys of our own."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from uuid import uuid4

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from app.settings.storage import Bucket
from app.storage.base import FOLDER
from app.storage.s3.errors import PATIENCE, code_of, made, translated

CHUNK = 64 * 1024  # bytes; with what the SDK reads ahead, a client that does not read holds some 1 MiB


class Objects:
    """One bucket, through one client. Everything raises what `translated` does."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._folder = self.path(f"{FOLDER}/")
        self._client: Any = None
        self._signer: Any = None
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=2,
            read_timeout=PATIENCE,
            max_pool_connections=0,  # no limit: whoever calls holds a slot of its own kind
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": self._bucket.addressing},
            # Signatures and Content-MD5 cover what is sent; not every store knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        async with made():
            if self._bucket.verify is True:
                # The SDK reads it with the first request, and then speaks of a connection that failed.
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
            verify=None if self._bucket.verify is True else self._bucket.verify,  # None: AWS_CA_BUNDLE counts
            config=config,
        )
        return await self._opened.enter_async_context(client)

    def path(self, key: str) -> str:
        """The name of an object in the bucket."""
        return self._bucket.prefix + key

    async def call(self, operation: str, key: str, *, patience: float = PATIENCE, **params: Any) -> dict[str, Any]:
        """An operation on one object."""
        async with translated(patience):
            answer: dict[str, Any] = await getattr(self._client, operation)(
                Bucket=self._bucket.name, Key=self.path(key), **params
            )
        return answer

    async def url(self, operation: str, key: str, seconds: int, **params: Any) -> str:
        """A signed URL that lets anybody do the operation, with these params, at the public endpoint."""
        params |= {"Bucket": self._bucket.name, "Key": self.path(key)}
        async with translated():  # credentials may have to be fetched
            return str(await self._signer.generate_presigned_url(operation, params, seconds))

    async def probe(self, patience: float, *, writing: bool) -> None:
        """See whether the bucket answers and, if asked, takes a file and can be swept. Unlike HeadBucket, a list says
        why not."""
        name, probe = self._bucket.name, self._folder + str(uuid4())  # nobody's, and an orphan if it stays
        async with translated(patience, quiet=True):
            await self._client.list_objects_v2(Bucket=name, Prefix=self._folder, MaxKeys=1)
            if writing:
                await self._client.put_object(Bucket=name, Key=probe)
                await self._client.delete_object(Bucket=name, Key=probe)
                await self._client.list_multipart_uploads(Bucket=name, Prefix=self._folder, MaxUploads=1)

    @asynccontextmanager
    async def stream(self, key: str, start: int, length: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """A span of an object, in chunks as they arrive; empty if it lies behind the end."""
        span = f"bytes={start}-{start + length - 1}"
        async with translated():
            try:
                answer = await self._client.get_object(Bucket=self._bucket.name, Key=self.path(key), Range=span)
            except ClientError as error:
                if code_of(error) != "InvalidRange":
                    raise
                answer = {"Body": nullcontext()}
        async with answer["Body"] as body:
            yield _chunks(body)

    async def pages(self, operation: str) -> AsyncIterator[dict[str, Any]]:
        """The pages of a list of what is in our folder."""
        paginator = self._client.get_paginator(operation)
        pages = aiter(paginator.paginate(Bucket=self._bucket.name, Prefix=self._folder))
        while True:
            async with translated():
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    def key(self, path: str) -> str:
        """The key of an object that was listed."""
        return path.removeprefix(self._bucket.prefix)


async def _chunks(body: Any | None) -> AsyncIterator[bytes]:
    while body is not None:
        async with translated():
            chunk: bytes = await body.read(CHUNK)
        if not chunk:
            return
        yield chunk
