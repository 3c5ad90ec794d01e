"""/livez, /readyz, /metrics."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field

from app.errors import AppError, NotFound, NotReady
from app.server.operators import is_operator
from app.telemetry.metrics import forget_dead_processes
from app.web.body import json_response
from app.web.describe import raises
from app.web.route import Route

log = structlog.get_logger()


class _Probe(Route):
    """A route without a rate limit, so that monitoring works during a flood. Its many requests are logged quietly."""

    quiet = True

    async def admit(self, request: Request) -> None:
        pass


router = APIRouter(tags=["health"], route_class=_Probe)

CHECK_TIMEOUT = 2.0  # seconds
CHECK_CACHE_SECONDS = 1.0  # a check costs a commit on SQLite, and anybody may ask as often as they like
_METRICS_SHARE = 0.05  # largest share of the time spent on metrics: 8 ms, or 0.2 s with a million documents
_METRICS_CACHE_SECONDS = 15.0  # upper limit, so that one slow reading is not served for minutes


class Liveness(BaseModel):
    """The answer of /livez."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    status: str = "ok"


class Readiness(Liveness):
    """The answer of /readyz to an operator."""

    checks: dict[str, str]
    alarms: dict[str, str] = Field(description="What an operator should look into. This process serves nevertheless.")


@dataclass
class Health:
    """Whether this process can serve, and the values of its gauges.

    A check raises when something that this process needs does not work. An alarm returns a text, or None when all is
    well. `read_gauges` asks the database.
    """

    checks: dict[str, Callable[[], Awaitable[None]]]
    alarms: Mapping[str, Callable[[], str | None]]
    read_gauges: Callable[[], Awaitable[Sequence[Metric]]]
    draining: bool = False
    _checking: "asyncio.Task[dict[str, str]] | None" = None
    _checked_at: float = 0
    _reading: "asyncio.Task[bytes] | None" = None
    _metrics_fresh_until: float = 0

    async def report(self) -> Readiness:
        """Every check as `ok` or why it failed, and the alarms that have a text.

        The checks run at most once in CHECK_CACHE_SECONDS; everybody who asks meanwhile gets the same results.
        """
        if self._checking is None or (
            self._checking.done() and time.monotonic() - self._checked_at > CHECK_CACHE_SECONDS
        ):
            self._checked_at = time.monotonic()
            self._checking = asyncio.create_task(self._check())
        checks = await asyncio.shield(self._checking)  # others may be waiting when this caller is cancelled
        if self.draining:
            checks = checks | {"shutdown": "draining"}
        return Readiness(checks=checks, alarms={name: text for name, alarm in self.alarms.items() if (text := alarm())})

    async def metrics(self) -> bytes:
        """Prometheus text: the counters and gauges as they are now or, if that takes long, as they were recently."""
        if self._reading is None or (self._reading.done() and time.monotonic() > self._metrics_fresh_until):
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(self._reading)

    async def _read(self) -> bytes:
        began = time.monotonic()
        gauges = CollectorRegistry()
        gauges.register(_Gauges(await self.read_gauges()))
        text = generate_latest(_counters()) + generate_latest(gauges)
        ended = time.monotonic()
        self._metrics_fresh_until = ended + min((ended - began) / _METRICS_SHARE, _METRICS_CACHE_SECONDS)
        return text

    async def _check(self) -> dict[str, str]:
        states = await asyncio.gather(*(_state(name, check) for name, check in self.checks.items()))
        return dict(zip(self.checks, states, strict=True))


@router.get(
    "/livez", operation_id="livez", response_model=Liveness, responses=raises(authenticated=False, limited=False)
)
async def livez() -> Response:
    """The process is alive: its event loop answers."""
    return json_response(Liveness())


@router.get(
    "/readyz",
    operation_id="readyz",
    response_model=Readiness | Liveness,
    responses=raises(NotReady, authenticated=False, limited=False),
)
async def readyz(request: Request) -> Response:
    """The process can serve: its database and storage answer, and it is not shutting down. Operators see why not."""
    health: Health = request.app.state.health
    report = await health.report()
    told = is_operator(request)
    if wrong := [name for name, state in report.checks.items() if state != "ok"]:
        details = {"checks": report.checks, "alarms": report.alarms}
        raise NotReady("Not in order: " + ", ".join(wrong), **details) if told else NotReady
    return json_response(report if told else Liveness())


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **raises(NotFound, authenticated=False, limited=False)},
)
async def metrics(request: Request) -> Response:
    """Prometheus text, for operators: this server's counters, and gauges that are read from the database."""
    health: Health = request.app.state.health
    if not is_operator(request):
        raise NotFound
    return Response(await health.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _counters() -> CollectorRegistry:
    """The counters of all processes of this server."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    forget_dead_processes()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


async def _state(name: str, check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check()
    except AppError as error:
        log.warning("readiness.failed", check=name, reason=error.detail)
        return "failed" if error.detail == error.explanation else f"failed: {error.detail}"
    except Exception:
        log.exception("readiness.failed", check=name)
        return "failed"
    return "ok"


@dataclass(eq=False)
class _Gauges(Collector):
    families: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.families
