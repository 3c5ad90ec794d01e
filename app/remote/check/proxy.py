"""Stands between the worker and the service: passes calls on, keeps what it saw, and lets faults disturb them."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

import aiohttp
from aiohttp import web
from yarl import URL

from app.client.calls import proxy
from app.remote.check.traffic import Answer, Call

PassOn: TypeAlias = Callable[[], Awaitable[Answer]]
Fault: TypeAlias = Callable[[Call, PassOn], Awaitable[Answer | None]]
"""What becomes of a call in place of passing it on; None: the connection ends without an answer."""

LONGEST_WAIT = 0.5  # seconds that a claim waits at the service, so that the next one can be disturbed soon

_OF_A_CONNECTION = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
    *("host", "content-length", "content-encoding", "accept-encoding"),  # these are made anew
}
_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # by the HTTP client, unless it is told not to


class Given(NamedTuple):
    """An input as the service gave it to the worker."""

    url: str
    headers: dict[str, str]


class Proxy:
    """The service, as the worker sees it. Use `serving` to serve it.

    Jobs of the document `document_id` are those of the check; `job_id` is the one of them that was claimed last.
    `faults` disturb all claims, and calls about that job, by their kind. The worker is told a lease of `lease` seconds.
    """

    def __init__(self, url: str) -> None:
        self.calls: list[Call] = []
        self.faults: dict[str, Fault] = {}
        self.given: dict[str, Given] = {}  # by the path here
        self.tokens: dict[str, str] = {}  # by the job's id
        self.strayed: list[Call] = []  # calls at `other_port`, where the worker has no business
        self.other_port = 0
        self.document_id = self.job_id = ""
        self.lease = 3.0
        self._url = url.rstrip("/")

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[str]:
        """Serve, and yield the URL. Raises OSError."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await runner.setup()
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with aiohttp.ClientSession(
                timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), skip_auto_headers=_ADDED
            ) as self._session:
                await web.TCPSite(runner, host, port).start()
                await web.TCPSite(runner, host, 0).start()
                bound, self.other_port = (int(each[1]) for each in runner.addresses)
                yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.path, request.headers, await request.read())
        if request.get_extra_info("sockname")[1] == self.other_port:
            self.strayed.append(call)
            return web.Response(status=404)
        self.calls.append(call)
        fault = self.faults.get(call.kind) if call.kind == "claim" or call.job_id == self.job_id else None

        async def pass_on() -> Answer:
            return self._rewritten(call, await self._ask(request, call), f"{request.scheme}://{request.host}")

        try:
            call.answer = await (fault(call, pass_on) if fault else pass_on())
        finally:
            call.ended_at = time.monotonic()
        if call.answer is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return web.Response(status=call.answer.status, headers=call.answer.headers, body=call.answer.body)

    async def _ask(self, request: web.Request, call: Call) -> Answer:
        """Send a call on."""
        given = self.given.get(call.path)
        url = given.url if given else self._url + request.rel_url.raw_path_qs
        body = call.body
        if call.kind == "claim" and isinstance(wait := call.said.get("wait"), int | float):
            body = json.dumps({**call.said, "wait": min(wait, LONGEST_WAIT)}).encode()
        try:
            async with self._session.request(
                call.method,
                URL(url, encoded=True),
                headers=_passed(call.headers),
                data=body or None,
                allow_redirects=False,
                proxy=proxy(url),
            ) as response:
                return Answer(response.status, _passed(response.headers), await response.read())
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: the worker's target makes no URL
            return Answer.of(502, {"code": "no-answer", "detail": str(error)})

    def _rewritten(self, call: Call, answer: Answer, here: str) -> Answer:
        """An answer about a job of the check, with the lease that is told, and inputs that are read through here."""
        if answer.status != 200 or call.kind not in {"claim", "heartbeat"}:
            return answer
        said = answer.said
        if call.kind == "claim":
            if said.get("document_id") != self.document_id:
                return answer
            call.job_id = self.job_id = said["job_id"]
            self.tokens[call.job_id] = said["token"]
        elif call.job_id not in self.tokens:
            return answer
        said["lease_seconds"] = min(said["lease_seconds"], self.lease)
        for number, given in enumerate(said["inputs"]):
            path = f"/inputs/{call.job_id}/{number}/{len(self.given)}"
            self.given[path] = Given(given["url"], given["headers"])
            given["url"] = here + path
        return answer._replace(body=json.dumps(said).encode())


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are about more than one connection."""
    return {name: value for name, value in headers.items() if name.lower() not in _OF_A_CONNECTION}
