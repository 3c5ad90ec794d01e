"""The app in this very process, one step at a time: nothing goes on in the background, and the clock is the test's."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import Connection

from app import events, main, wiring
from app.accounts.service import Accounts
from app.auth import sessions, users
from app.auth.principal import Principal, Role, Scope
from app.auth.sessions import Issued
from app.events import Listener
from app.jobs import claims, repository, settlement, transitions
from app.jobs.capacity import Capacity
from app.jobs.kinds import Outcome
from app.jobs.models import Job
from app.jobs.turns import EARLIEST, Turns
from app.server.health import Health
from app.settings import Settings
from app.telemetry import context
from app.wiring.services import Services
from tests.support import databases

T = TypeVar("T")


class Process:
    """A server process: the app and its services on a data folder. Nothing is pulled but by `work`."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        databases.prepare(data_dir)
        options["database_url"] = databases.url(data_dir)
        settings = Settings(_env_file=None, data_dir=data_dir, log_level="ERROR", **options)
        self._services = wiring.build(settings)
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._run(self._services.begin())
        self._services.feed.close()  # the client here reads an answer to its end, and a stream has none
        app = main.create_app(settings)
        self._state = app.state
        self._state.services = self._services
        self._state.health = Health(self._services.checks, self._services.alarms, self._services.gauges)
        self._client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app")

    def http(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        key: str | None = None,
        kind: str = "",
        headers: Sequence[tuple[str, str]] = (),
        **body: Any,
    ) -> httpx2.Response:
        """`kind` is the content type of a body that has none by itself; `headers` are any others."""
        sent = [("Authorization", f"Bearer {token}")] if token else []
        sent += [("Idempotency-Key", key)] if key else []
        sent += [("Content-Type", kind)] if kind else []
        encoded = [(name.encode(), value.encode()) for name, value in (*sent, *headers)]
        return self._run(self._client.request(method, path, headers=encoded, **body))

    @property
    def services(self) -> Services:
        """What it runs."""
        return self._services

    def enter(self, email: str, role: Role = Role.USER) -> tuple[str, str]:
        """A new account that is logged in: its id, and an access token. No password is hashed, which takes long."""

        def begin(conn: Connection) -> Issued:
            user = users.add(conn, email, "none")
            users.change(conn, user.id, role=role)
            return sessions.begin(conn, user.id, self._services.settings)

        session = self.write(begin)
        answer = self.http("POST", "/auth/refresh", json={"refresh_token": session.refresh_token})
        return str(session.user_id), answer.json()["access_token"]

    def write(self, unit: Callable[..., T], *args: Any) -> T:
        """Run a unit of work as a worker does."""
        return self._run(self._services.db.write(lambda conn: unit(conn, *args)))

    def settle(self, job: Job, outcome: Outcome) -> bool:
        """Write what came of an attempt, as its worker does."""
        kind = self._services.kinds[job.kind]
        with context.acting(request=job.request_id):
            return self.write(lambda conn: settlement.settle(conn, kind, job, outcome, seconds=0.1))

    def subscribe(self, listener: Listener) -> None:
        events.subscribe(self._services.db, listener)

    def operate(self, work: Callable[[Accounts], Coroutine[Any, Any, T]]) -> T:
        """Have the operator do something with accounts."""
        with context.acting(context.OPERATOR):
            return self._run(work(self._services.accounts))

    def principal(self, api_key: str) -> Principal:
        """Who makes a request with the API key."""
        return self._run(self._services.keys.authenticate(api_key))

    @contextmanager
    def limited(self, *scopes: Scope) -> Iterator[None]:
        """Whoever authenticates meanwhile may do no more than this."""
        authenticate = self._services.auth.authenticate

        async def limited(access_token: str) -> Principal:
            return replace(await authenticate(access_token), scopes=frozenset(scopes))

        with patch.object(self._services.auth, "authenticate", limited):
            yield

    @property
    def queues(self) -> Sequence[str]:
        """The queues that this process can serve."""
        return self._services.runner.queues

    @property
    def turns(self) -> Turns:
        """What its polls have told."""
        return self._services.runner.turns

    def claim(self, limit: int, lease: float = 30.0, **limits: int) -> list[Job]:
        """Claim so many due jobs, whoever owns them; of a processor at the most as many as `limits` says.

        All that is due gets its turn before, as by a poll.
        """
        processors = {queue: queue.partition("/")[2].partition("@")[0] for queue in self.queues}
        of_queues = {queue: limits.get(name, limit) for queue, name in processors.items()}
        self.write(transitions.assign_turns, dict.fromkeys(self.queues, time.time()), EARLIEST)
        return self.write(claims.claim_due, unshared(of_queues, limit), lease, 0.0)

    def tick(self) -> None:
        self._run(self._services.rescuer.poll())
        self._run(self._services.upkeep.once())

    def pull(self, *, polled: bool = True) -> None:
        """Poll, pull what is due, and run it."""

        async def run() -> None:
            if polled:
                await self._services.rescuer.poll()
            await self._services.runner.pull()
            await self._services.runner.join()

        self._run(run())

    def announce(self) -> None:
        """Say once that it is there."""
        self._run(self._services.presence.announce())

    def work(self, *job_ids: UUID) -> None:
        """Pull and run until these jobs are finished."""

        async def run() -> None:
            runner, finished = self._services.runner, partial(repository.finished, job_ids=job_ids)
            while len(await self._services.db.read(finished)) < len(job_ids):
                await self._services.rescuer.poll()
                await runner.pull()
                await runner.join()

        self._run(run())

    def deliver(self) -> None:
        """Make the deliveries that are due, and those that become due by it."""

        async def run() -> None:
            deliverer = self._services.deliverer
            await self._services.rescuer.poll()
            await deliverer.pull()
            while deliverer.usage.used:
                await deliverer.join()
                await self._services.rescuer.poll()
                await deliverer.pull()

        self._run(run())

    def explain(self, sql: str, parameters: Any) -> list[str]:
        """The database's plan for a statement, a line a step."""
        explain = "EXPLAIN" if databases.POSTGRESQL else "EXPLAIN QUERY PLAN"
        plan = self._run(
            self._services.db.read(lambda conn: conn.exec_driver_sql(f"{explain} {sql}", parameters).all())
        )
        return [step[-1] for step in plan]

    def kill(self) -> None:
        """Go away without any shutdown; given back is only what the operating system would take back."""
        self._services.hasher.close()
        self._run(self._client.aclose())
        self._run(self._services.db.close())
        self._loop.close()
        del self._state.services  # the framework keeps the app for ever; with it would stay the storage's threads

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """In a context of its own, as each request and each attempt has one; a worker acts unless somebody does."""
        with context.acting(context.actor.get() or context.worker()):
            return self._loop.run(work, context=copy_context())


def unshared(limits: Mapping[str, int], limit: int) -> Capacity:
    """Capacity for so many more jobs, and of each queue, all of which may be one owner's.

    The rest is in use by somebody, so that what is left is less than a share.
    """
    others = [(uuid4(), queue) for queue, count in limits.items() for _ in range(3 * count)]
    sizes = {queue: 4 * count for queue, count in limits.items()}
    return Capacity(len(others) + limit, sizes, others)


@cache
def addresses() -> list[tuple[str, str]]:
    """Method and path of every operation on one document or job of a user's."""
    paths = main.app.openapi()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "_id}" in path and "security" in operation and not path.startswith("/admin/")
    ]
