"""The life of a server or worker process: start, work, drain on a signal, stop."""

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

import structlog
from fastapi import FastAPI
from prometheus_client.core import Metric

from app import VERSION
from app.server.connections import Connections, connections_allowed
from app.server.health import Health
from app.server.signals import STOPPING, exiting_at_once
from app.settings import Settings
from app.telemetry import faults

log = structlog.get_logger()

QUEUE_SECONDS = 60.0  # that an upload may wait for its turn, beside the time that it may take
SECRETS = ("JWT_SECRET", "AUDIT_KEY", "DATABASE_URL", "BROKER_URL", "LIMITS_URL", "METRICS_TOKEN", "DOCUMENT_API_KEY")
EXIT_SECONDS = 10.0  # that a process has to end after DRAIN_SECONDS or SHUTDOWN_DELAY_SECONDS, whichever is longer


class Running(Protocol):
    """What a process runs: the services of a server or worker, or a worker elsewhere."""

    @property
    def settings(self) -> Settings: ...

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[None]]]: ...

    @property
    def alarms(self) -> dict[str, Callable[[], str | None]]: ...

    async def gauges(self) -> Sequence[Metric]: ...

    async def open(self) -> None: ...

    async def run(self) -> None: ...

    async def drain(self, seconds: float, delay: float = 0) -> None: ...

    async def close(self) -> None: ...


def lifespan(build: Callable[[], Running]) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """A lifespan for FastAPI: the services are open and run in the background while requests are served.

    Its state are the limits of `BoundedHttp`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        services = build()
        with exiting_at_once():
            await services.open()
        forget_secrets()
        background = asyncio.create_task(services.run())
        health = Health(services.checks, services.alarms, services.gauges)
        health.checks["background"] = partial(_still_running, background)
        app.state.services, app.state.health = services, health
        _DrainOnSignal(services, health)
        _stop_with_parent()
        for name in services.alarms:
            if alarm := services.alarms[name]():
                log.warning("server.alarm", alarm=name, detail=alarm)
        log.info(
            "server.started",
            environment=services.settings.environment,
            version=VERSION,
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        yield _limits(services.settings)
        background.cancel()
        await asyncio.wait([background])
        await services.close()
        log.info("server.stopped")

    return lifespan


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "connections": Connections(min(settings.max_connections, connections_allowed())),
        "body_timeout": settings.upload_max_seconds + QUEUE_SECONDS,
    }


def forget_secrets() -> None:
    """Take the secrets out of the environment, which every process that this one starts would inherit.

    The parent of several server processes keeps them for those that it starts later, and the keys of AWS stay: its SDK
    reads them when it needs them.
    """
    for name in [name for name in os.environ if name.upper() in SECRETS]:
        del os.environ[name]


async def _still_running(background: asyncio.Task[None]) -> None:
    if background.done():
        background.result()


def _stop_with_parent() -> None:
    """Terminate when the supervisor is gone: this process would go on unsupervised, and keep the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent-watch", daemon=True).start()


class _DrainOnSignal:
    """Drains on SIGTERM and SIGINT, then calls the handler that it replaced. A second signal ends the wait.

    Drains before uvicorn's own shutdown, which waits for background tasks but cannot end them. Requests are served
    meanwhile, and for SHUTDOWN_DELAY_SECONDS at least, so a load balancer has time to see /readyz fail.
    """

    def __init__(self, services: Running, health: Health) -> None:
        self._services = services
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._replaced = {n: each for n in STOPPING if callable(each := signal.getsignal(n))}
        self._task: asyncio.Task[None] | None = None
        if threading.current_thread() is threading.main_thread():
            for number in self._replaced:
                signal.signal(number, self._received)

    def _received(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, signal.Signals(number))

    def _begin(self, number: signal.Signals) -> None:
        if self._health.draining:
            self._replaced[number](number, None)
        else:
            self._health.draining = True
            self._task = asyncio.create_task(self._drain(number))

    async def _drain(self, number: signal.Signals) -> None:
        log.info("server.draining", signal=number.name)
        faults.hit("shutdown.draining")
        seconds = self._services.settings.drain_seconds
        delay = self._services.settings.shutdown_delay_seconds
        # The process ends then, whatever is in flight: a thread of somebody's work may go on for ever.
        forced = threading.Timer(max(seconds, delay) + EXIT_SECONDS, os._exit, [1])
        forced.daemon = True
        forced.start()
        await self._services.drain(seconds, delay)
        self._replaced[number](number, None)
