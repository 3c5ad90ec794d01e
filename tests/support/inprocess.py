"""The app in this very process, one step at a time: nothing goes on in the background, and the clock is the test's."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID

import httpx2

from app import wiring
from app.main import create_app
from app.settings import Settings
from tests.support import databases

SERVED = ("auth", "documents", "uploads", "processing", "health")

T = TypeVar("T")


class Process:
    """A server process: the app and its services on a data folder. Hints go nowhere, but are counted."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        options["database_url"] = databases.url(data_dir)
        settings = Settings(_env_file=None, data_dir=data_dir, log_level="ERROR", **options)
        self.hints: Counter[UUID] = Counter()
        with patch.object(wiring, "InProcessDispatcher", lambda _run: self):
            self._services = wiring.build(settings)
        self._services.db.migrate()
        app = create_app(settings)
        self._state = app.state
        for name in SERVED:
            setattr(self._state, name, getattr(self._services, name))
        self._client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app")
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    room = 500
    plenty = False
    alarm = None

    async def send(self, job_id: UUID) -> None:
        """Be the Dispatcher."""
        self.hints[job_id] += 1

    def http(
        self, method: str, path: str, *, token: str = "", key: str | None = None, kind: str = "", **body: Any
    ) -> httpx2.Response:
        """`kind` is the content type of a body that has none by itself."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key else {}
        headers |= {"Content-Type": kind} if kind else {}
        return self._loop.run(self._client.request(method, path, headers=headers, **body))

    def write(self, unit: Callable[..., T], *args: Any) -> T:
        """Run a unit of work as a worker does."""
        return self._loop.run(self._services.db.write(lambda conn: unit(conn, *args)))

    def announce_all(self) -> None:
        self._sweep(self._services.sweeper.announce_all)

    def tick(self) -> None:
        self._sweep(self._services.sweeper.sweep_jobs)
        self._loop.run(self._services.upkeep.once())

    def work(self, *job_ids: UUID) -> None:
        """Be their runner."""

        async def run() -> None:
            await asyncio.gather(*map(self._services.runner.run, job_ids))

        self._loop.run(run())

    def explain(self, sql: str, parameters: Any) -> list[str]:
        """The database's plan for a statement, a line a step."""
        explain = "EXPLAIN" if databases.POSTGRESQL else "EXPLAIN QUERY PLAN"
        plan = self._loop.run(
            self._services.db.read(lambda conn: conn.exec_driver_sql(f"{explain} {sql}", parameters).all())
        )
        return [step[-1] for step in plan]

    def kill(self) -> None:
        """Go away without any shutdown; given back is only what the operating system would take back."""
        self._services.hasher.close()
        self._loop.run(self._client.aclose())
        self._loop.run(self._services.db.close())
        self._loop.close()
        for name in SERVED:  # the framework keeps the app for ever; with it would stay the storage's threads
            delattr(self._state, name)

    def _sweep(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop.run(step())
        self._loop.run(self._services.sweeper.close())


@cache
def addresses() -> list[tuple[str, str]]:
    """Method and path of every operation on one document or job of a user's."""
    paths = create_app(Settings(_env_file=None, log_level="ERROR")).openapi()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "_id}" in path and "security" in operation
    ]
