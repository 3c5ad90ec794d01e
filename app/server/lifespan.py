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
from typing import Any

import structlog
from fastapi import FastAPI

from app.server.health import Health
from app.telemetry import faults
from app.wiring import Services

log = structlog.get_logger()

EXIT_SECONDS = 10.0  # that a process has to end after DRAIN_SECONDS

Handler = Callable[[int, FrameType | None], Any]


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
        _drain_on_signal(services, health)
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


def _drain_on_signal(services: Services, health: Health) -> None:
    """Drain before uvicorn's own shutdown, which waits for background tasks but cannot end them.

    While jobs drain, requests are still served, so a load balancer has time to see /readyz fail.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _Drain(services, health, loop, before))


def _stop_with_parent() -> None:
    """Terminate when the supervisor is gone: this process would go on unsupervised, and keep the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent-watch", daemon=True).start()


def _exit_after(seconds: float) -> None:
    """End the process then, whatever is in flight: a thread of somebody's work may go on for ever."""
    forced = threading.Timer(seconds, os._exit, [1])
    forced.daemon = True
    forced.start()


class _Drain:
    """A signal handler that drains, then calls the handler that it replaced. A second signal ends the wait."""

    def __init__(self, services: Services, health: Health, loop: asyncio.AbstractEventLoop, then: Handler) -> None:
        self._services = services
        self._health = health
        self._loop = loop
        self._then = then
        self._task: asyncio.Task[None] | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self._health.draining:
            self._then(number, None)
        else:
            self._health.draining = True
            self._task = asyncio.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        log.info("server.draining", signal=signal.Signals(number).name)
        faults.hit("shutdown.draining")
        _exit_after(self._services.settings.drain_seconds + EXIT_SECONDS)
        await self._services.drain(self._services.settings.drain_seconds)
        self._then(number, None)
