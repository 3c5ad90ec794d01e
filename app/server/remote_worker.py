"""What a worker elsewhere runs: it claims and works until it is drained."""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client.core import Metric

from app.client.calls import Connection
from app.processors import sandbox
from app.processors.base import Processor
from app.remote.worker.api import Claims, Service
from app.remote.worker.worker import RemoteWorker
from app.settings import Settings
from app.telemetry.loop import LoopWatch
from app.wiring.process import prepare_process

log = structlog.get_logger()


class Elsewhere:
    """Runs the jobs of the service at a URL with these processors.

    If it can go on no more, `failure` says why, and `ended` is called.
    """

    def __init__(self, settings: Settings, url: str, key: str, processors: Sequence[Processor]) -> None:
        self.settings = settings
        self.failure: Exception | None = None
        self.ended: Callable[[], None] = lambda: None
        self._connection = Connection(url, 2 * settings.job_concurrency + len(processors))
        self._name = _name()
        self._worker = RemoteWorker(Claims(Service(self._connection), key, self._name), processors, settings)

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """None: while the service is away, the worker waits for it."""
        return {}

    @property
    def alarms(self) -> dict[str, Callable[[], str | None]]:
        """What an operator should look into."""
        return {"sandbox": sandbox.missing}

    async def gauges(self) -> list[Metric]:
        """None: there is no database to read them from."""
        return []

    async def open(self) -> None:
        """Get ready to call the service, in the running event loop."""
        prepare_process(self.settings)
        await self._connection.__aenter__()
        log.info("remote.opened", url=self._connection.url, worker=self._name)

    async def run(self) -> None:
        """Claim and work, until drained or cancelled."""
        watching = asyncio.create_task(LoopWatch(self._worker.describe).run())
        try:
            await self._worker.run()
        except Exception as error:  # noqa: BLE001 - the process ends with it
            self.failure = error
        finally:
            watching.cancel()
        await self.drain(self.settings.drain_seconds)
        self.ended()

    async def drain(self, seconds: float, delay: float = 0) -> None:
        """Claim no more; let jobs end within `seconds`, or give them back."""
        await self._worker.drain(seconds)

    async def close(self) -> None:
        """Give back what is left, and close the connections."""
        await self.drain(0)
        await self._connection.__aexit__(None, None, None)


def _name() -> str:
    """What operators see the worker by: its host and process, in characters that such a name can have."""
    return re.sub("[^!-~]", "-", f"{socket.gethostname()}:{os.getpid()}")[-80:]
