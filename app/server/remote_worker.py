"""The process of a worker elsewhere: it claims and works until a signal, and serves nothing."""

import asyncio
import os
import re
import signal
import socket
import threading
from collections.abc import Sequence

import structlog

from app import VERSION
from app.client.calls import Connection
from app.errors import ConfigurationError
from app.processors.base import Processor
from app.remote.worker.calls import Claims
from app.remote.worker.worker import RemoteWorker
from app.server import logs
from app.server.lifespan import EXIT_SECONDS, forget_secrets
from app.server.signals import STOPPING
from app.settings import Settings
from app.telemetry.loop import LoopWatch
from app.wiring import adapters
from app.wiring.process import prepare_process

log = structlog.get_logger()


def run(settings: Settings, url: str, key: str, names: Sequence[str] = ()) -> None:
    """Run the jobs of the service at the URL, with the processors of these names; without any, with all of PROCESSORS.

    Returns once it has drained on a signal. Raises ConfigurationError, Stopped.
    """
    if settings.job_concurrency == 0:
        raise ConfigurationError("JOB_CONCURRENCY: a worker with 0 would run nothing; set it, or --concurrency")
    logs.configure(settings)
    prepare_process(settings)
    forget_secrets()
    processors = [each.processor for each in adapters.chosen(settings, *names)]
    asyncio.run(_run(settings, url, key, processors))


async def _run(settings: Settings, url: str, key: str, processors: Sequence[Processor]) -> None:
    async with Connection(url, 2 * settings.job_concurrency + len(processors)) as connection:
        name = _name()
        worker = RemoteWorker(Claims(connection, key, name), processors, settings)
        working = asyncio.create_task(worker.run())
        watching = asyncio.create_task(LoopWatch(worker.describe).run())
        stop = _DrainOnSignal(worker, settings.drain_seconds)
        log.info("worker.started", version=VERSION, remote=connection.url, worker=name, pid=os.getpid())
        await asyncio.wait([working, stop.told], return_when=asyncio.FIRST_COMPLETED)
        await (stop.drained() if stop.told.done() else worker.drain(settings.drain_seconds))
        watching.cancel()
        if working.done():
            working.result()
        working.cancel()
    log.info("worker.stopped")


class _DrainOnSignal:
    """Drains on SIGTERM and SIGINT. A second signal ends the wait. `told` is done at the first one."""

    def __init__(self, worker: RemoteWorker, seconds: float) -> None:
        self._worker = worker
        self._seconds = seconds
        self._drains: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        self.told: asyncio.Future[None] = loop.create_future()
        for number in STOPPING:
            loop.add_signal_handler(number, self._received, number)

    async def drained(self) -> None:
        """Wait for the drain, if there is one."""
        for each in self._drains[:1]:
            await each

    def _received(self, number: signal.Signals) -> None:
        if self._drains:
            self._drains.append(asyncio.create_task(self._worker.drain(0)))
            return
        log.info("worker.draining", signal=number.name)
        # The process ends then, whatever is in flight: a thread of somebody's work may go on for ever.
        forced = threading.Timer(self._seconds + EXIT_SECONDS, os._exit, [1])
        forced.daemon = True
        forced.start()
        self._drains.append(asyncio.create_task(self._worker.drain(self._seconds)))
        self.told.set_result(None)


def _name() -> str:
    """What operators see the worker by: its host and process, in characters that such a name can have."""
    return re.sub("[^!-~]", "-", f"{socket.gethostname()}:{os.getpid()}")[-80:]
