"""Stub until the branch `outbound` is merged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp

from app.errors import UrlNotAllowed


class Answer(NamedTuple):
    status: int
    retry_after: float | None
    text: str


@dataclass
class OutboundFailed(Exception):
    code: str
    detail: str


class Outbound:
    def __init__(self, settings) -> None:
        self._timeout = settings.webhook_timeout

    def check(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise UrlNotAllowed

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            async with asyncio_timeout(self._timeout), aiohttp.ClientSession() as session:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    after = answer.headers.get("retry-after")
                    return Answer(answer.status, float(after) if after else None, (await answer.text())[:2000])
        except TimeoutError:
            raise OutboundFailed("timeout", "It took too long.") from None
        except aiohttp.ClientError as error:
            raise OutboundFailed("unreachable", type(error).__name__) from None

    async def close(self) -> None:
        pass


import asyncio

asyncio_timeout = asyncio.timeout
