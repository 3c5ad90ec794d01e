"""Calls of the API, which are repeated until they are answered."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http.client import responses
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from app.client.files import UploadForm

MAX_TRIES = 10  # of a call that may be at fault itself; with the pauses between them some two minutes
LONGEST_PAUSE = 30.0  # seconds, unless the service asks for a longer one
PATIENCE = 300.0  # seconds without an answer that counts to any call of a method; a longer wait is not begun
FIRST_PATIENCE = 20.0  # seconds that the first answer may take
STALLED = 120.0  # seconds in which not a byte is sent or answered

_WAITING = {429, 503, 507}  # what is about the service and passes with time, however often it was tried


class Problem(Exception):
    """A call that will not succeed. `status` is 0 if there was no answer."""

    def __init__(self, status: int, code: str, detail: str, pointers: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.pointers = pointers  # what of the request it is about (RFC 6901)


class Stopped(Exception):
    """There is no use in going on; the message is one line that says why."""


@dataclass(frozen=True)
class Credentials:
    """An API key; or the address and password of an account."""

    api_key: str = field(default="", repr=False)
    email: str = ""
    password: str = field(default="", repr=False)


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
        errors = [each for each in self.content.get("errors") or () if isinstance(each, dict)]
        more = "; ".join(f"{each.get('pointer', '')} {each.get('detail', '')}".strip() for each in errors)
        detail = str(self.content.get("detail") or responses.get(self.status, "no reason was given"))
        return Problem(
            self.status,
            str(self.content.get("code") or f"http-{self.status}"),
            f"{detail} {more}".strip(),
            tuple(str(each.get("pointer", "")) for each in errors),
        )


class _Request(NamedTuple):
    method: str
    path: str
    body: "UploadForm | dict[str, Any] | None" = None
    query: Mapping[str, str] = MappingProxyType({})
    headers: Mapping[str, str] = MappingProxyType({})

    def by(self, token: str) -> Self:
        """The request as somebody who is logged in sends it."""
        return self._replace(headers={"Authorization": f"Bearer {token}", **self.headers})


class Api:
    """The API at a URL. Use it as a context manager.

    A call is repeated while it gets no answer, or one that may change, with the pause that the answer asks for or a
    growing one. A call that changes something is sent with an Idempotency-Key, so that it is done once.
    """

    def __init__(self, url: str, credentials: Credentials, connections: int) -> None:
        self.url = url.rstrip("/")
        self._credentials = credentials
        self._connections = connections
        self._token = credentials.api_key
        self._logging_in = asyncio.Lock()
        self._answered_at: dict[str, float] = {}  # by method: jobs that are asked for tell nothing about uploads
        self._patience = FIRST_PATIENCE

    async def __aenter__(self) -> Self:
        # Proxies are those of the environment, but not by `trust_env`: that also takes passwords out of ~/.netrc, and
        # fails where there is an Authorization header beside them.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy(self.url),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The JSON at a path. Raises Problem, Stopped."""
        words = {name: str(value) for name, value in query.items()}
        return (await self._call(_Request("GET", path, query=words))).content

    async def post(self, path: str, body: "UploadForm | dict[str, Any]", key: str) -> Answer:
        """Send a form or JSON under an Idempotency-Key. Raises Problem, Stopped."""
        return await self._call(_Request("POST", path, body, headers={"Idempotency-Key": key}))

    async def register(self) -> None:
        """Make the account of its credentials. Raises Problem, Stopped."""
        answer = await self._repeated(_Request("POST", "/auth/register", self._account))
        if answer.status >= 400:
            raise answer.problem

    @property
    def _account(self) -> dict[str, Any]:
        return {"email": self._credentials.email, "password": self._credentials.password}

    async def _call(self, request: _Request) -> Answer:
        """Call until there is an answer that counts, as an account that is logged in."""
        if not self._token:
            await self._log_in("")
        token = self._token
        answer = await self._repeated(request.by(token))
        if answer.status == 401 and self._credentials.email:
            await self._log_in(token)  # an access token is good for a quarter of an hour
            answer = await self._repeated(request.by(self._token))
        if answer.status in {401, 403}:  # all other calls would be answered so, too
            raise Stopped(f"{answer.status} {answer.problem}")
        if answer.status >= 400:
            raise answer.problem
        return answer

    async def _log_in(self, refused: str) -> None:
        """Get a token in place of one that was refused, unless another call has got one meanwhile. Raises Stopped."""
        async with self._logging_in:
            if self._token != refused:
                return
            answer = await self._repeated(_Request("POST", "/auth/login", self._account))
            if answer.status >= 400 or "access_token" not in answer.content:
                raise Stopped(f"{answer.status} {answer.problem}")
            self._token = answer.content["access_token"]

    async def _repeated(self, request: _Request) -> Answer:
        """The answer that counts. Raises Problem after MAX_TRIES, and Stopped when none has come in PATIENCE."""
        method, started, tries = request.method, time.monotonic(), 0
        while True:
            tries += 1
            wait: float | None = None
            try:
                answer = await self._once(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = Problem(0, "no-answer", str(error) or type(error).__name__)
            else:
                if not answer.is_temporary:
                    self._answered_at[method], self._patience = time.monotonic(), PATIENCE
                    return answer
                problem, wait = answer.problem, answer.retry_after
                self._patience = PATIENCE
            if tries >= MAX_TRIES and problem.status not in _WAITING:
                raise problem
            growing = min(LONGEST_PAUSE, 2.0 ** min(tries - 2, 9)) * random.uniform(0.5, 1)  # noqa: S311 - no secret
            pause = wait or growing
            if time.monotonic() + pause > max(started, self._answered_at.get(method, 0)) + self._patience:
                asked = f" It asks to wait {wait:.0f} seconds" if wait else ""
                raise Stopped(f"{self.url}: {problem}{asked}")
            await asyncio.sleep(pause)

    async def _once(self, asked: _Request) -> Answer:
        body, headers = asked.body, asked.headers
        async with asyncio.timeout(STALLED) as clock, AsyncExitStack() as opened:
            sent: dict[str, Any] = {"json": body}
            if isinstance(body, UploadForm):
                # Closed here: what sends the chunks is left as it is when the connection is lost.
                file = opened.enter_context(body.open())
                sent = {"data": _watched(body.chunks(file), clock)}
                length = {"Content-Type": body.content_type, "Content-Length": str(body.length)}
                headers = {**headers, **length}
            request = self._session.request(
                asked.method, self.url + asked.path, params=asked.query, headers=headers, allow_redirects=False, **sent
            )
            async with request as response:
                content = await _json(response)
                wait = response.headers.get("Retry-After", "")
                replayed = response.headers.get("Idempotent-Replayed") == "true"
                return Answer(response.status, content, float(wait) if wait.isdecimal() else None, replayed)


def proxy(url: str) -> str | None:
    """The proxy by which the environment has a URL reached, if it has one."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def _watched(chunks: AsyncIterator[bytes], clock: asyncio.Timeout) -> AsyncIterator[bytes]:
    """The chunks of a form. Each that is wanted gives the request more time."""
    async for chunk in chunks:
        clock.reschedule(asyncio.get_running_loop().time() + STALLED)
        yield chunk


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The object in an answer; empty if an error has none. Raises Stopped for what is not this API."""
    try:
        content = await response.json(content_type=None)
    except (ValueError, UnicodeDecodeError):
        content = None
    if isinstance(content, dict) and not 300 <= response.status < 400:
        return content
    if response.status < 400:
        raise Stopped(f"{response.method} {response.url} → {response.status}, which is not how this service answers")
    return {}
