"""Calls of the API, which are repeated until they are answered."""

import asyncio
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from app.client.calls import (
    LONGEST_PAUSE,
    NO_ANSWER,
    Answer,
    Body,
    Connection,
    Problem,
    Request,
    Stopped,
    growing_pause,
)

MAX_TRIES = 10  # of a call that may be at fault itself; with the pauses between them some two minutes
PATIENCE = 300.0  # seconds without an answer that counts to any call of a method; a longer wait is not begun
FIRST_PATIENCE = 20.0  # seconds that the first answer may take

_WAITING = {429, 503, 507}  # what is about the service and passes with time, however often it was tried


@dataclass(frozen=True)
class Credentials:
    """An API key; or the address and password of an account."""

    api_key: str = field(default="", repr=False)
    email: str = ""
    password: str = field(default="", repr=False)


class Api:
    """The API at a URL. Use it as a context manager.

    A call is repeated while it gets no answer, or one that may change, with the pause that the answer asks for or a
    growing one. A call that changes something is sent with an Idempotency-Key, so that it is done once.
    """

    def __init__(self, url: str, credentials: Credentials, connections: int) -> None:
        self.url = url.rstrip("/")
        self._connection = Connection(url, connections)
        self._credentials = credentials
        self._token = credentials.api_key
        self._logging_in = asyncio.Lock()
        self._answered_at: dict[str, float] = {}  # by method: jobs that are asked for tell nothing about uploads
        self._patience = FIRST_PATIENCE

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, at)

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The JSON at a path. Raises Problem, Stopped."""
        words = {name: str(value) for name, value in query.items()}
        return (await self._call(Request("GET", path, query=words))).content

    async def post(self, path: str, body: Body | dict[str, Any], key: str) -> Answer:
        """Send a form or JSON under an Idempotency-Key. Raises Problem, Stopped."""
        return await self._call(Request("POST", path, body, headers={"Idempotency-Key": key}))

    async def register(self) -> None:
        """Make the account of its credentials. Raises Problem, Stopped."""
        answer = await self._repeated(Request("POST", "/auth/register", self._account))
        if answer.status >= 400:
            raise answer.problem

    @property
    def _account(self) -> dict[str, Any]:
        return {"email": self._credentials.email, "password": self._credentials.password}

    async def _call(self, request: Request) -> Answer:
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
            answer = await self._repeated(Request("POST", "/auth/login", self._account))
            if answer.status >= 400 or "access_token" not in answer.content:
                raise Stopped(f"{answer.status} {answer.problem}")
            self._token = answer.content["access_token"]

    async def _repeated(self, request: Request) -> Answer:
        """The answer that counts. Raises Problem after MAX_TRIES, and Stopped when none has come in PATIENCE."""
        method, started, tries = request.method, time.monotonic(), 0
        while True:
            tries += 1
            wait: float | None = None
            try:
                answer = await self._connection.answer(request)
            except NO_ANSWER as error:
                problem = Problem(0, "no-answer", str(error) or type(error).__name__)
            else:
                if not answer.is_temporary:
                    self._answered_at[method], self._patience = time.monotonic(), PATIENCE
                    return answer
                problem, wait = answer.problem, answer.retry_after
                self._patience = PATIENCE
            if tries >= MAX_TRIES and problem.status not in _WAITING:
                raise problem
            pause = wait or growing_pause(tries, LONGEST_PAUSE)
            if time.monotonic() + pause > max(started, self._answered_at.get(method, 0)) + self._patience:
                asked = f" It asks to wait {wait:.0f} seconds" if wait else ""
                raise Stopped(f"{self.url}: {problem}{asked}")
            await asyncio.sleep(pause)
