"""One call of the API over HTTP, and what its answer means."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from http.client import responses
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from app.client.outcomes import printable

LONGEST_PAUSE = 30.0  # seconds between two calls, unless the service asks for a longer one
LONGEST_ASKED = 300.0  # the same if it asks for one
STALLED = 120.0  # seconds in which not a byte is sent or answered
MAX_ANSWER = 16 * 1024**2  # bytes
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)
"""What a call raises that got no answer, or not all of it."""


class Problem(Exception):
    """A call that will not succeed. `status` is 0 if there was no answer."""

    def __init__(self, status: int, code: str, detail: str, pointers: tuple[str, ...] = ()) -> None:
        super().__init__(printable(f"{code}: {detail}"))
        self.status = status
        self.code = code
        self.detail = detail
        self.pointers = pointers  # what of the request it is about (RFC 6901)


class Stopped(Exception):
    """There is no use in going on; the message is one line that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable(" ".join(reason.splitlines())))


class Answer(NamedTuple):
    """An answer: its JSON, seconds that it asks to wait, and whether it was given before to the same key."""

    status: int
    content: dict[str, Any]
    retry_after: float | None
    replayed: bool

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may be answered otherwise later."""
        return self.status >= 500 or self.status in {408, 429} or (self.status >= 400 and self.retry_after is not None)

    @property
    def problem(self) -> Problem:
        """What an answer that is an error says; a proxy's need not be a problem object."""
        listed = self.content.get("errors")
        errors = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        more = "; ".join(f"{each.get('pointer', '')} {each.get('detail', '')}".strip() for each in errors)
        detail = str(self.content.get("detail") or responses.get(self.status, "no reason was given"))
        return Problem(
            self.status,
            str(self.content.get("code") or f"http-{self.status}"),
            f"{detail} {more}".strip(),
            tuple(str(each.get("pointer", "")) for each in errors),
        )


class Body(Protocol):
    """A body that is read from a file as it is sent."""

    @property
    def content_type(self) -> str:
        """Its media type."""

    @property
    def length(self) -> int:
        """Its bytes."""

    def open(self) -> BinaryIO:
        """The file, for `chunks`. Raises OSError."""

    def chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        """Yield the body. Raises OSError, EOFError if the file is shorter now."""


class Request(NamedTuple):
    """A call. A body of bytes is JSON already. An answer of more than `max_answer` bytes is none of this API."""

    method: str
    path: str
    body: Body | bytes | dict[str, Any] | None = None
    query: Mapping[str, str] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})
    max_answer: int = MAX_ANSWER

    def by(self, token: str) -> Self:
        """The request as somebody sends it who has this bearer token."""
        return self._replace(headers={"Authorization": f"Bearer {token}", **self.headers})


class Connection:
    """The service at a URL. Use it as a context manager."""

    def __init__(self, url: str, connections: int) -> None:
        self.url = url.rstrip("/")
        self._connections = connections

    async def __aenter__(self) -> Self:
        # Proxies are those of the environment, but not by `trust_env`: that also takes passwords out of ~/.netrc, and
        # fails where there is an Authorization header beside them.
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy(self.url),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.session.close()

    async def answer(self, asked: Request) -> Answer:
        """Call once. Raises one of NO_ANSWER, Stopped for what is not this API."""
        body, headers = asked.body, asked.headers
        async with asyncio.timeout(STALLED) as clock, AsyncExitStack() as opened:
            sent: dict[str, Any] = {"json": body}
            if isinstance(body, bytes):
                sent, headers = {"data": body}, {**headers, "Content-Type": "application/json"}
            elif body is not None and not isinstance(body, dict):
                # Closed here: what sends the chunks is left as it is when the connection is lost.
                file = opened.enter_context(body.open())
                sent = {"data": _watched(body.chunks(file), clock)}
                length = {"Content-Type": body.content_type, "Content-Length": str(body.length)}
                headers = {**headers, **length}
            request = self.session.request(
                asked.method, self.url + asked.path, params=asked.query, headers=headers, allow_redirects=False, **sent
            )
            async with request as response:
                content = await _json(response, asked.max_answer)
                replayed = response.headers.get("Idempotent-Replayed") == "true"
                return Answer(response.status, content, retry_after(response), replayed)


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that an answer asks to wait."""
    wait = response.headers.get("Retry-After", "")
    return float(wait) if wait.isdecimal() else None


def pause(asked: float | None, tries: int, longest: float, longest_asked: float = LONGEST_ASKED) -> float:
    """Seconds until a call is repeated that was tried so often: what the service asks for, but no more than that."""
    return min(asked, longest_asked) if asked else growing_pause(tries, longest)


def growing_pause(tries: int, longest: float) -> float:
    """Seconds until a call is repeated that was tried so often. They double, up to the longest, and vary."""
    return min(longest, 2.0 ** min(tries - 2, 9)) * random.uniform(0.5, 1)  # noqa: S311 - no secret


def proxy(url: str) -> str | None:
    """The proxy by which the environment has a URL reached, if it has one."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def _watched(chunks: AsyncIterator[bytes], clock: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The chunks of a body. Each that is wanted gives the request more time."""
    async for chunk in chunks:
        clock.reschedule(asyncio.get_running_loop().time() + STALLED)
        yield chunk


async def beginning(response: aiohttp.ClientResponse, max_bytes: int = MAX_ANSWER) -> bytes:
    """The body of an answer, which is cut off when it is longer."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > max_bytes:
            break
    return bytes(content[:max_bytes])


async def _json(response: aiohttp.ClientResponse, max_bytes: int) -> dict[str, Any]:
    """The object in an answer; empty if an error, or 204, has none. Raises Stopped for what is not this API."""
    try:
        content = json.loads(await beginning(response, max_bytes))
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and not 300 <= response.status < 400:
        return content
    if response.status < 400 and response.status != 204:
        raise Stopped(f"{response.method} {response.url} → {response.status}, which is not how this service answers")
    return {}
