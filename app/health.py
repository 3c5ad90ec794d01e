"""/livez, /readyz, /metrics."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY as OWN_REGISTRY,
    CollectorRegistry,
    Gauge,
    generate_latest,
    multiprocess,
)
from pydantic import BaseModel
from sqlalchemy import Connection

from app.database import Database
from app.documents import repository as documents
from app.errors import NotReady
from app.processing import repository as jobs
from app.web import json_response, raises

log = structlog.get_logger()
router = APIRouter(tags=["health"])

CHECK_TIMEOUT = 2.0  # seconds


class Liveness(BaseModel):
    status: str = "ok"


class Readiness(Liveness):
    checks: dict[str, str]


@dataclass
class Health:
    """What this process needs in order to serve: a check raises when it is not there."""

    db: Database
    checks: dict[str, Callable[[], Awaitable[None]]]
    draining: bool = field(default=False)

    async def report(self) -> dict[str, str]:
        """`ok` or `failed` by check."""
        states = await asyncio.gather(*(_state(check) for check in self.checks.values()))
        report = dict(zip(self.checks, states, strict=True))
        return report | ({"shutdown": "draining"} if self.draining else {})


@router.get("/livez", operation_id="livez", response_model=Liveness)
async def livez() -> Response:
    """The process is alive: its event loop answers."""
    return json_response(Liveness())


@router.get("/readyz", operation_id="readyz", response_model=Readiness, responses=raises(NotReady, authenticated=False))
async def readyz(request: Request) -> Response:
    """The process can serve: its database and storage answer, and it is not about to stop."""
    checks = await request.app.state.health.report()
    if set(checks.values()) != {"ok"}:
        raise NotReady("Not in order: " + ", ".join(n for n, state in checks.items() if state != "ok"), checks=checks)
    return json_response(Readiness(checks=checks))


@router.get(
    "/metrics", operation_id="metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
)
async def metrics(request: Request) -> Response:
    """Prometheus text: this server's counters, and what the database says now."""
    health: Health = request.app.state.health
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        counted = generate_latest(registry)
    else:
        counted = generate_latest(OWN_REGISTRY)
    facts = generate_latest(await health.db.read(_facts))
    return Response(counted + facts, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _state(check: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check()
    except Exception:
        log.exception("readiness.failed")
        return "failed"
    return "ok"


def _facts(conn: Connection) -> CollectorRegistry:
    registry = CollectorRegistry()
    by_status = Gauge("documents", "Documents by status.", ["status"], registry=registry)
    for status, count in documents.counts(conn).items():
        by_status.labels(status).set(count)
    by_state = Gauge("jobs", "Jobs by state.", ["state"], registry=registry)
    states, oldest = jobs.counts(conn)
    for state, count in states.items():
        by_state.labels(state).set(count)
    age = Gauge("jobs_oldest_queued_seconds", "Age of the oldest job that is due and queued.", registry=registry)
    age.set(oldest)
    return registry
