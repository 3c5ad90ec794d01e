"""The application: `uvicorn app.main:app`, or `python -m app serve`."""

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
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import health, logs, openapi, problems, wiring
from app.auth import routes as auth
from app.documents import routes as documents
from app.middleware import RequestMiddleware
from app.processing import routes as processing
from app.settings import Settings, load
from app.uploads import routes as uploads
from app.wiring import Services

log = structlog.get_logger()

Handler = Callable[[int, FrameType | None], Any]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Raises ConfigurationError when the environment cannot be run with."""
    settings = settings or load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json)
    app = FastAPIOffline(**openapi.DESCRIPTION, redoc_url=None, lifespan=_lifespan(settings))
    app.add_middleware(RequestMiddleware)
    problems.install(app)
    for router in (
        auth.router,
        auth.own,
        uploads.router,
        uploads.open_to_all,
        documents.router,
        processing.router,
        health.router,
    ):
        app.include_router(router)
    openapi.install(app, wiring.PROCESSORS)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = wiring.build(settings)
        await services.open()
        app.state.auth = services.auth
        app.state.documents = services.documents
        app.state.uploads = services.uploads
        app.state.processing = services.processing
        app.state.health = services.health
        background = asyncio.create_task(services.run())
        services.health.checks["background"] = partial(_still_running, background)
        _drain_on_signal(services)
        _stop_with_parent()
        log.info("server.started", environment=settings.environment)
        yield
        background.cancel()
        await asyncio.wait([background])
        await services.close()
        log.info("server.stopped")

    return lifespan


async def _still_running(background: asyncio.Task[None]) -> None:
    if background.done():
        background.result()


def _drain_on_signal(services: Services) -> None:
    """Put the drain before uvicorn's own shutdown, which waits for background tasks but cannot end them.

    While jobs drain, requests are still served, so a load balancer has time to see /readyz fail.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, _Drain(services, loop, before))


def _stop_with_parent() -> None:
    """A worker process whose supervisor was killed would serve on, unsupervised, and keep the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent-watch", daemon=True).start()


class _Drain:
    """A signal handler that drains first. At the second signal it does not wait."""

    def __init__(self, services: Services, loop: asyncio.AbstractEventLoop, then: Handler) -> None:
        self._services = services
        self._loop = loop
        self._then = then
        self._task: asyncio.Task[None] | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        if self._services.health.draining:
            self._then(number, None)
        else:
            self._task = asyncio.create_task(self._drain(number))

    async def _drain(self, number: int) -> None:
        log.info("server.draining", signal=signal.Signals(number).name)
        await self._services.drain(self._services.settings.drain_seconds)
        self._then(number, None)


app = create_app()
