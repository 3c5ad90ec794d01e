"""A service that means harm to workers elsewhere: it gains nothing, and a worker goes on or says why it ends."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from app.client.calls import MAX_ANSWER, Connection, Stopped, pause
from app.processors.simulated import SimulatedProcessor
from app.remote.check.proxy import Proxy
from app.remote.worker.api import Claims, Service
from app.remote.worker.worker import RemoteWorker
from app.settings import Settings
from tests.support.amazon import FUNCTION
from tests.support.remote_workers import FOLDER, NODE, needs_node

CONTENT = b"what is to be read"
STEERING = "\x1b[31mowned\x07"
ENDS = {"complete", "fail"}
LARGEST = 1000  # bytes of a file that the worker takes


def problem(status: int, **said: Any) -> web.Response:
    return web.json_response(said, status=status, content_type="application/problem+json")


@dataclass
class Hostile:
    """The service. It answers claims with `claims`, one after the other, and then with 204.

    `calls` is what was said about jobs, by the last word of the path, and `strayed` what came to another port.
    """

    claims: list[web.StreamResponse | dict[str, Any] | bytes] = field(default_factory=list)
    input_answer: Any = CONTENT
    calls: list[tuple[str, Any]] = field(default_factory=list)
    strayed: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""
    elsewhere: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Hostile"]:
        app, other = web.Application(), web.Application()
        app.router.add_post("/remote/{processor}/claim", self._claim)
        app.router.add_post("/remote/jobs/{job}/claim", self._claim)
        app.router.add_post("/remote/jobs/{job}/{what}", self._about)
        app.router.add_get("/input", self._input)
        other.router.add_route("*", "/{path:.*}", self._stray)
        runners = [web.AppRunner(each, shutdown_timeout=0) for each in (app, other)]
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url, self.elsewhere = (f"http://127.0.0.1:{each.addresses[0][1]}" for each in runners)
        try:
            yield self
        finally:
            for runner in runners:
                await runner.cleanup()

    def job(self, given: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """A good job, but for this in it, or in its input."""
        source = {
            "url": f"{self.url}/input",
            "headers": {"Authorization": "Bearer jt_secret"},
            "expires_at": "2100-01-01T00:00:00Z",
            "content_type": "application/pdf",
            "size": len(CONTENT),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
        }
        return {
            **dict.fromkeys(("job_id", "document_id", "owner_id"), str(uuid4())),
            "processor": "simulated",
            "version": "1",
            "params": {"seconds": 0},
            "attempt": 1,
            "token": "jt_secret",
            "lease_seconds": 60,
            "deadline": "2100-01-01T00:00:00Z",
            "filename": "a.pdf",
            "content_type": "application/pdf",
            "metadata": {},
            "inputs": [{**source, **(given or {})}],
            **more,
        }

    def said(self, what: str) -> list[Any]:
        return [said for about, said in self.calls if about == what]

    def redirect(self, status: int = 307) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{self.elsewhere}/stolen"})

    async def _claim(self, _: web.Request) -> web.StreamResponse:
        if not self.claims:
            await asyncio.sleep(0.05)
            return web.Response(status=204)
        match self.claims.pop(0):
            case web.StreamResponse() as answer:
                return answer
            case bytes() as body:
                return web.Response(body=body, content_type="application/json")
            case job:
                return web.json_response(job)

    async def _about(self, request: web.Request) -> web.Response:
        self.calls.append((request.match_info["what"], await request.json()))
        return web.json_response({"state": "SUCCEEDED", "lease_seconds": 60, "cancelled": False, "inputs": []})

    async def _input(self, request: web.Request) -> web.StreamResponse:
        if not isinstance(self.input_answer, str):
            return web.Response(body=self.input_answer) if isinstance(self.input_answer, bytes) else self.redirect(302)
        endless = web.StreamResponse(status=500, headers={"Content-Type": self.input_answer})
        await endless.prepare(request)
        with suppress(ConnectionError):
            for _ in range(20 * MAX_ANSWER // 10**6):
                await endless.write(b" " * 10**6)
            self.calls.append(("endless", None))
        return endless

    async def _stray(self, request: web.Request) -> web.Response:
        self.strayed.append(request.headers)
        return web.json_response({})


@pytest.fixture
async def service() -> AsyncIterator[Hostile]:
    async with Hostile().serving() as hostile:
        yield hostile


async def until(condition: Callable[[], Any], working: "asyncio.Future[Any]") -> None:
    """Wait for it, or for the end of the worker. Raises what ends the worker."""
    async with asyncio.timeout(20):
        while not condition():
            if (await asyncio.wait([working], timeout=0.02))[0]:
                working.result()
                return


async def worked(service: Hostile, *settled: str) -> None:
    """Work in this process until jobs were settled so. Raises what ends the worker."""
    settings = Settings(max_upload_bytes=LARGEST, job_concurrency=1)
    async with Connection(service.url, 4) as connection:
        worker = RemoteWorker(Claims(Service(connection), "dla_secret", "w"), [SimulatedProcessor()], settings)
        working = asyncio.create_task(worker.run())
        try:
            await until(lambda: settled and [what for what, _ in service.calls if what in ENDS] == [*settled], working)
        finally:
            await worker.drain(0)
            working.cancel()
            await asyncio.wait([working])


async def test_members_of_a_later_release(service: Hostile) -> None:
    more: dict[str, Any] = {"later": {}}
    service.claims = [service.job(more, metadata={"tags": ["a"]} | more, **more)]
    await worked(service, "complete")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"url": "file:///etc/passwd"}, {}),
        ({"url": "http://[::1"}, {}),
        ({"headers": {"X": "a\r\nInjected: b"}}, {}),
        ({"headers": {"X\r\nInjected": "b"}}, {}),
        ({}, {"inputs": []}),
        ({}, {"job_id": None}),
    ],
)
async def test_a_job_that_cannot_be_worked_on(service: Hostile, given: Any, more: Any) -> None:
    """It is not begun, and the next one is."""
    good = service.job()
    service.claims = [service.job(given, **more), good]
    await worked(service, "complete")
    assert service.said("complete")[0]["data"]["size"] == len(CONTENT)


async def test_a_refusal_of_another_form(service: Hostile) -> None:
    service.claims = [problem(503, code=[], errors=5), problem(503, errors=[5]), service.job()]
    await worked(service, "complete")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b" " * (MAX_ANSWER + 1) + b"{}"])
async def test_an_answer_that_is_none(service: Hostile, body: bytes) -> None:
    service.claims = [body]
    with pytest.raises(Stopped, match="not how this service answers"):
        await worked(service)


async def test_an_input_that_is_larger_than_the_worker_takes(service: Hostile) -> None:
    service.claims = [service.job({"size": 10**15})]
    await worked(service, "fail")
    [said] = service.said("fail")
    assert (said["code"], said["transient"]) == ("input-too-large", False)


async def test_a_refusal_without_an_end(service: Hostile) -> None:
    """It is not read to its end, and the input is asked for again."""
    service.input_answer = "application/problem+json"
    service.claims = [service.job()]
    working = asyncio.create_task(worked(service, "complete"))
    await until(lambda: service.said("heartbeat"), working)
    service.input_answer = CONTENT
    await working
    assert not service.said("endless")


@pytest.mark.parametrize("asked", [float("inf"), 1e9])
def test_a_wait_without_an_end(asked: float) -> None:
    assert pause(asked, 1, 30) == 300


async def test_words_that_steer_a_terminal(service: Hostile) -> None:
    """They are in the last line of the worker."""
    service.claims = [problem(403, code=f"x{STEERING}", detail=f"{STEERING}\nall is well")]
    with pytest.raises(Stopped) as ended:
        await worked(service)
    assert str(ended.value).isprintable()
    assert "all is well" in str(ended.value)


@pytest.mark.parametrize(
    ("target", "body"), [("/remote/count/claim", "[" * 100_000), ("http://other.example/remote/count/claim", "{}")]
)
async def test_a_worker_that_harms_its_check(service: Hostile, target: str, body: str) -> None:
    async with Proxy(service.url).serving("127.0.0.1", 0) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = (f"POST {target} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", "Connection: close", "", body)
        writer.write("\r\n".join(head).encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 204 ")


CALLED = """
import handler, json
from types import SimpleNamespace
record = {"messageId": "m", "body": json.dumps({"job_id": "01a22d50-f4da-712c-8409-81d3257f0faa"})}
handler.handler({"Records": [record]}, SimpleNamespace(get_remaining_time_in_millis=lambda: 13_000))
"""
PROGRAMS = [
    pytest.param([sys.executable, str(FOLDER / "remote_worker.py"), "{url}", "count"], id="python"),
    pytest.param([NODE, str(FOLDER / "remote_worker.mjs"), "{url}", "count"], id="node", marks=needs_node),
    pytest.param([sys.executable, "-c", CALLED], id="function"),
]


@asynccontextmanager
async def program(service: Hostile, command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker that is a program, with what it prints; killed at the end."""
    secrets = {"API_URL": service.url, "API_KEY": "dla_secret"}
    process = await asyncio.create_subprocess_exec(
        *(each.replace("{url}", service.url) for each in command),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(FUNCTION)} | secrets,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("command", PROGRAMS)
@pytest.mark.parametrize("status", [302, 307])
async def test_a_claim_that_leads_elsewhere(service: Hostile, command: list[str], status: int) -> None:
    service.claims = [service.redirect(status)]
    async with program(service, command) as process, asyncio.timeout(20):
        assert process.stdout is not None
        printed = await process.stdout.read()
    assert not service.strayed
    assert str(status) in printed.decode()


@pytest.mark.parametrize("command", PROGRAMS)
@pytest.mark.parametrize("to", ["a redirect", "a file"])
async def test_an_input_that_leads_elsewhere(service: Hostile, command: list[str], to: str, tmp_path: Path) -> None:
    """The job is failed: another attempt may be given a better one."""
    service.input_answer = None
    (tmp_path / "secret").write_bytes(CONTENT)
    given = {} if to == "a redirect" else {"url": (tmp_path / "secret").as_uri()}
    params = {"of": "bytes", "file_map": [{"first": 1, "last": 1, "name": "a"}]}
    service.claims = [service.job(given, processor="count", params=params)]
    async with program(service, command) as process:
        ended = asyncio.create_task(process.wait())
        await until(lambda: service.said("fail") or service.said("complete"), ended)
    assert not service.strayed
    assert [each["transient"] for each in service.said("fail")] == [True], service.calls
