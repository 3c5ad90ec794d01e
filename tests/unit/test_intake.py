"""The pace of an upload."""

import asyncio

import pytest

from app.errors import RequestTimeout
from app.files.limits import paced


async def test_an_upload_that_takes_too_long_is_cut_off() -> None:
    """However fast it is: only so are files of parts dated right in a bucket."""

    async def endless():
        while True:
            await asyncio.sleep(0.01)
            yield bytes(1000)

    received = 0
    with pytest.raises(RequestTimeout):  # noqa: PT012
        async for chunk in paced(endless(), idle=5, min_rate=0, longest=0.2):
            received += len(chunk)
    assert received > 0
