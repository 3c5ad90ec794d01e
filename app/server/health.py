"""/livez, /readyz, /metrics."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY as OWN_REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from app.database import Database
from app.documents import repository as documents
from app.errors import AppError, NotReady
from app.jobs import repository as jobs
from app.web.describe import raises
from app.web.route import Route, json_response

log = structlog.get_logger()
router = APIRouter(tags=["health"], route_class=Route)

CHECK_TIMEOUT = 2.0  # seconds
MEMORY = 1.0  # seconds: anybody may ask, as often as they like, and a check costs a commit
FACTS_SHARE = 0.05  # of the time at the most is spent on counting, which takes 0.2 s with a million documents
FACTS_MEMORY = 15.0  # seconds at the most, or one count that waited long would stand for minutes


class Liveness(BaseModel):
    status: str = "ok"


class Readiness(Liveness):
    checks: dict[str, str]
    alarms: dict[str, str] = Field(description="What an operator should look after. This process serves all the same.")


@dataclass
class Health:
    """What this process needs in order to serve: a check raises when it is not there. An alarm has a text or none."""

    db: Database
    checks: dict[str, Callable[[], Awaitable[None]]]
    alarms: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    draining: bool = False
    _report: "asyncio.Task[dict[str, str]] | None" = None
    _asked_at: float = 0
    _facts: "asyncio.Task[_Facts] | None" = None
    _facts_fresh_until: float = 0

    async def report(self) -> Readiness:
        """By check `ok`, or why it failed; by alarm its text. What was found is the answer to everybody who asks within
        MEMORY."""
        if self._report is None or (self._report.done() and time.monotonic() - self._asked_at > MEMORY):
            self._asked_at = time.monotonic()
            self._report = asyncio.create_task(self._check())
        checks = await asyncio.shield(self._report)  # others may wait for it when this one goes away
        if self.draining:
            checks = checks | {"shutdown": "draining"}
        return Readiness(checks=checks, alarms={name: text for name, alarm in self.alarms.items() if (text := alarm())})

    async def facts(self) -> "_Facts":
        """What the database says now or, if it takes long to say, has said lately."""
        if self._facts is None or (self._facts.done() and time.monotonic() > self._facts_fresh_until):
            self._facts = asyncio.create_task(self._count())
        return await asyncio.shield(self._facts)

    async def _count(self) -> "_Facts":
        began = time.monotonic()
        facts = await self.db.read(_Facts)
        ended = time.monotonic()
        self._facts_fresh_until = ended + min((ended - began) / FACTS_SHARE, FACTS_MEMORY)
        return facts

    async def _check(self) -> dict[str, str]:
        states = await asyncio.gather(*(_state(name, check) for name, check in self.checks.items()))
        return dict(zip(self.checks, states, strict=True))


@router.get("/livez", operation_id="livez", response_model=Liveness, responses=raises(authenticated=False))
async def livez() -> Response:
    """The process is alive: its event loop answers."""
    return json_response(Liveness())


@router.get("/readyz", operation_id="readyz", response_model=Readiness, responses=raises(NotReady, authenticated=False))
async def readyz(request: Request) -> Response:
    """The process can serve: its database and storage answer, and it is not about to stop."""
    report: Readiness = await request.app.state.health.report()
    if wrong := [name for name, state in report.checks.items() if state != "ok"]:
        raise NotReady("Not in order: " + ", ".join(wrong), checks=report.checks, alarms=report.alarms)
    return json_response(report)


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **raises(authenticated=False)},
)
async def metrics(request: Request) -> Response:
    """Prometheus text: this server's counters, and what the database says now."""
    health: Health = request.app.state.health
    facts = CollectorRegistry()
    facts.register(await health.facts())
    text = generate_latest(_counted()) + generate_latest(facts)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _counted() -> CollectorRegistry:
    """What this server's processes counted."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return OWN_REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


async def _state(name: str, check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check()
    except AppError as error:
        log.warning("readiness.failed", check=name, reason=error.detail)
        return "failed" if error.detail == error.title else f"failed: {error.detail}"
    except Exception:
        log.exception("readiness.failed", check=name)
        return "failed"
    return "ok"


class _Facts(Collector):
    """What the database says, as metrics. Not prometheus-client's Gauge: that one would be shared between processes."""

    def __init__(self, conn: Connection) -> None:
        self._documents = documents.counts(conn)
        self._jobs, self._oldest = jobs.counts(conn)

    def collect(self) -> Iterator[Metric]:
        yield _by("documents", "Documents by status.", "status", self._documents)
        yield _by("jobs", "Jobs by state.", "state", self._jobs)
        age = "Age of the oldest job that is due and queued."
        yield GaugeMetricFamily("jobs_oldest_queued_seconds", age, value=self._oldest)


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
