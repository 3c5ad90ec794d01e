"""The life of a server or worker process: start, work, drain on a signal, stop."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import FrameType

import structlog
from fastapi import FastAPI

from app.server.health import Health
from app.telemetry import faults
from app.wiring import Services

log = structlog.get_logger()

EXIT_SECONDS = 10.0  # that a process has to end after DRAIN_SECONDS


def lifespan(build: Callable[[], Services]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan for FastAPI: the services are open and run in the background while requests are served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = build()
        await services.open()
        background = asyncio.create_task(services.run())
        health = Health(services.checks, services.alarms, services.gauges)
        health.checks["background"] = partial(_still_running, background)
        app.state.services, app.state.health = services, health
        _DrainOnSignal(services, health)
        _stop_with_parent()
        log.info("server.started", environment=services.settings.environment)
        yield
        background.cancel()
        await asyncio.wait([background])
        await services.close()
        log.info("server.stopped")

    return lifespan


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

    Drains before uvicorn's own shutdown, which waits for background tasks but cannot end them. While jobs drain,
    requests are still served, so a load balancer has time to see /readyz fail.
    """

    def __init__(self, services: Services, health: Health) -> None:
        self._services = services
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._replaced = {n: each for n in (signal.SIGTERM, signal.SIGINT) if callable(each := signal.getsignal(n))}
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
        # The process ends then, whatever is in flight: a thread of somebody's work may go on for ever.
        forced = threading.Timer(seconds + EXIT_SECONDS, os._exit, [1])
        forced.daemon = True
        forced.start()
        await self._services.drain(seconds)
        self._replaced[number](number, None)
