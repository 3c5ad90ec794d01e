"""The journeys of requests, and of a job, through the code: which functions of the application are called, in order.

The application runs in this process, on SQLite in a temporary folder, and is driven by HTTP. Counted are the calls of
functions in `app`, comprehensions and lambdas among them, in all threads; to resume a coroutine or a generator is no
call. uvicorn and its protocol come before, and are not seen. Log lines below ERROR are not written, and so not counted.
"""

import asyncio
import os
import sqlite3
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx2
from fastapi import BackgroundTasks

ROUNDS = 9  # the first warms up; of the others, the commonest journey counts: once a second, something else goes on
QUIET_SECONDS = 0.1  # without a call, and a job is settled
SETTINGS = {"LOG_LEVEL": "ERROR", "ENVIRONMENT": "development"}
ACCOUNT = {"email": "ada@example.com", "password": "correct horse battery staple"}

COMMIT = "commit"
ANSWERED = "answered"  # what follows is the background tasks of the response


class Call(NamedTuple):
    """A call of a function of the application, `depth` calls of others of its below the top of its thread."""

    thread: str
    depth: int
    file: str
    line: int
    function: str


class Journey:
    """Calls and commits in the order in which they came."""

    def __init__(self, steps: list[Call | str]):
        self._calls = [step for step in steps if isinstance(step, Call)]
        self._steps = steps

    @property
    def figures(self) -> dict[str, int]:
        files = [call.file for call in self._calls]
        visits = files[:1] + [file for before, file in pairwise(files) if file != before]
        return {
            "calls": len(self._calls),
            "functions": len({call[2:] for call in self._calls}),
            "files": len(set(files)),
            "changes of file": len(visits) - 1,
            "returns": len(visits) - len(set(files)),
            "thread changes": sum(call.thread != before.thread for before, call in pairwise(self._calls)),
            "commits": self._steps.count(COMMIT),
        }

    @property
    def lines(self) -> Iterator[str]:
        """The calls, each indented below its caller. Further calls of a function by the same caller are left out."""
        thread, callers = "", defaultdict[str, list[Call]](list)
        seen: set[tuple[Call, ...]] = set()
        for step in self._steps:
            if isinstance(step, str):
                yield f"== {step}"
                continue
            if step.thread != thread:
                thread = step.thread
                yield f"-- thread {thread}"
            callers[thread][step.depth :] = [step]
            if (path := tuple(callers[thread])) not in seen:
                seen.add(path)
                yield f"{'  ' * step.depth}{step.file}:{step.line} {step.function}"


class Recorder:
    """Notes calls and commits while it records. Has to be there before the threads are."""

    def __init__(self, app: Path):
        self._app = f"{app}/"
        self._steps: list[Call | str] | None = None
        threading.setprofile(self._noted)
        sys.setprofile(self._noted)

    async def during(self, action: Awaitable[httpx2.Response]) -> tuple[httpx2.Response, list[Call | str]]:
        """The answer to a request, and what was done until all was quiet."""
        self._steps = steps = []
        answer = await action
        known = -1
        while known != len(steps):
            known = len(steps)
            await asyncio.sleep(QUIET_SECONDS)
        self._steps = None
        return answer, steps

    def _noted(self, frame: FrameType, event: str, arg: Any):
        if self._steps is None:
            return
        code = frame.f_code
        if event == "c_call":
            driver = getattr(arg, "__self__", None)
            if arg.__name__ == "commit" and isinstance(driver, sqlite3.Connection) and driver.in_transaction:
                self._steps.append(COMMIT)
        elif event != "call" or not _begins(frame):
            return
        elif code.co_filename.startswith(self._app):
            file = code.co_filename.removeprefix(self._app)
            thread = threading.current_thread().name
            self._steps.append(Call(thread, self._depth(frame), file, code.co_firstlineno, code.co_qualname))
        elif code is BackgroundTasks.__call__.__code__:
            self._steps.append(ANSWERED)

    def _depth(self, frame: FrameType) -> int:
        depth, caller = 0, frame.f_back
        while caller:
            depth += caller.f_code.co_filename.startswith(self._app)
            caller = caller.f_back
        return depth


def _begins(frame: FrameType) -> bool:
    """Whether the frame is new: resumed, it is at an instruction RESUME whose argument is not 0."""
    return frame.f_lasti < 0 or frame.f_code.co_code[frame.f_lasti + 1] & 3 == 0


def journeys(root: Path) -> dict[str, Journey]:
    """The commonest journey of each kind through the project in this folder."""
    sys.path.insert(0, str(root))
    with TemporaryDirectory(prefix="journeys-") as folder:
        settings = {**SETTINGS, "DATA_DIR": folder}
        with patch.dict(os.environ, settings, clear=True):
            return asyncio.run(_travelled(root / "app"))


async def _travelled(app: Path) -> dict[str, Journey]:
    recorder = Recorder(app)
    from app.main import create_app  # noqa: PLC0415 - it reads the environment

    server = create_app()
    found: dict[str, list[Journey]] = defaultdict(list)
    async with (
        server.router.lifespan_context(server),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(server), base_url="http://app") as client,
    ):
        await client.post("/auth/register", json=ACCOUNT)
        tokens = (await client.post("/auth/login", json=ACCOUNT)).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        content = (app / "samples/sample.pdf").read_bytes()
        for number in range(ROUNDS):
            for name, journey in (await _round(client, recorder, content, str(number))).items():
                found[name] += [journey] if number else []
    return {name: _commonest(each) for name, each in found.items()}


async def _round(client: httpx2.AsyncClient, recorder: Recorder, content: bytes, key: str) -> dict[str, Journey]:
    answer, upload = await recorder.during(_upload(client, content))
    answer, keyed = await recorder.during(_upload(client, content, key))
    document = f"/documents/{answer.raise_for_status().json()['id']}"
    answer, get = await recorder.during(client.get(document))
    assert answer.json()["status"] == "UPLOADED", answer.text
    wanted, headers = {"params": {"seconds": 0}}, {"Idempotency-Key": f"process-{key}"}
    answer, process = await recorder.during(client.post(f"{document}/process", json=wanted, headers=headers))
    job = (await client.get(answer.raise_for_status().headers["Location"])).json()
    assert job["state"] == "SUCCEEDED", job
    end = process.index(ANSWERED)
    return {
        "get": Journey(get),
        "upload": Journey(upload),
        "keyed-upload": Journey(keyed),
        "process": Journey(process[:end]),
        "job": Journey(process[end + 1 :]),
    }


async def _upload(client: httpx2.AsyncClient, content: bytes, key: str = "") -> httpx2.Response:
    """A small PDF with metadata."""
    file = {"file": ("sample.pdf", content, "application/pdf")}
    data = {"metadata": '{"folder": "samples", "tags": ["first"]}'}
    headers = {"Idempotency-Key": f"upload-{key}"} if key else {}
    return await client.post("/documents", files=file, data=data, headers=headers)


def _commonest(journeys: list[Journey]) -> Journey:
    figures = [tuple(each.figures.values()) for each in journeys]
    return journeys[figures.index(Counter(figures).most_common(1)[0][0])]
