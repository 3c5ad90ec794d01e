"""Gauges: what the database and the disks hold, read when metrics are scraped, and what this process does, sampled.

Samples are taken once a second, because the process that is scraped answers for all processes of its server.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection

from app import VERSION
from app.check import scrubber
from app.database import Database
from app.documents import repository as documents
from app.errors import AppError
from app.files import backups
from app.jobs import pauses, repository as jobs
from app.jobs.rescuer import UNSERVED_SECONDS
from app.limiter import Usage
from app.processing.queues import processor_of
from app.telemetry import metrics
from app.web.middleware import RequestMiddleware
from app.webhooks.deliveries import QUEUE

_INTERVAL = 1.0  # seconds between two samples
_READ_TIMEOUT = 5.0  # seconds that the database may take, so that a scrape ends in time


async def sample(usages: Mapping[str, Callable[[], Usage]], alarms: Mapping[str, Callable[[], str | None]]) -> None:
    """Take samples until cancelled."""
    while True:
        metrics.requests_in_flight.set(RequestMiddleware.in_flight)
        for resource, usage in usages.items():
            used, of = usage()
            metrics.slots_in_use.labels(resource).set(used)
            metrics.slots.labels(resource).set(of)
        for name, alarm in alarms.items():
            metrics.alarms.labels(name).set(alarm() is not None)
        await asyncio.sleep(_INTERVAL)


async def read(db: Database, queues: Iterable[str], folders: Mapping[str, Path]) -> list[GaugeMetricFamily]:
    """Read what is kept outside of the processes. `queues` are those that this process serves.

    What is in the database is left out while that is away: the counters must be seen then, too.
    """
    found = [_by("version", "build_info", "1: this version of the service answers.", {VERSION: 1})]
    found += await asyncio.to_thread(_disks, folders)
    with suppress(AppError, TimeoutError):
        async with asyncio.timeout(_READ_TIMEOUT):
            found += await db.read(partial(_stored, queues=list(queues)))
    return found


def _stored(conn: Connection, queues: list[str]) -> list[GaugeMetricFamily]:
    totals = jobs.totals(conn, beside=QUEUE)
    unserved = jobs.unserved(conn, queues, UNSERVED_SECONDS)
    paused = {processor_of(pause.queues): 1 for pause in pauses.current(conn)}
    return [
        _by("status", "documents", "Documents by status.", documents.counts(conn)),
        _by("state", "jobs", "Jobs by state.", totals.by_state),
        _one("dead_letters", "Jobs that used up their tries.", totals.dead),
        _one("jobs_oldest_queued_seconds", "Age of the oldest job that is due and queued.", totals.queued_for),
        _one("jobs_longest_running_seconds", "Time since the first attempt of a running job.", totals.running_for),
        _one("webhook_oldest_due_seconds", "Age of the oldest delivery that is due.", jobs.due_for(conn, QUEUE)),
        _by("processor", "processors_paused", "1: an operator has paused it.", paused),
        _moment(
            "storage_scrub_last_complete_timestamp_seconds",
            "When all stored files had been read back last.",
            scrubber.last_complete(conn),
        ),
        _moment("last_backup_timestamp_seconds", "When the last backup was complete.", backups.last(conn)),
        _by("queue", "jobs_unserved", "Due jobs in queues that this process cannot serve.", unserved),
    ]


def _disks(folders: Mapping[str, Path]) -> list[GaugeMetricFamily]:
    """The disks of the folders. One that cannot be looked at is left out. Blocks."""
    disks = {}
    for name, folder in folders.items():
        with suppress(OSError):
            disks[name] = shutil.disk_usage(folder)
    return [
        _by("folder", "disk_free_bytes", "Free on the folder's disk.", {name: at.free for name, at in disks.items()}),
        _by("folder", "disk_bytes", "Size of the folder's disk.", {name: at.total for name, at in disks.items()}),
    ]


def _moment(name: str, documentation: str, moment: float | None) -> GaugeMetricFamily:
    """Without a value if it never was."""
    family = GaugeMetricFamily(f"document_api_{name}", documentation)
    return family if moment is None else _one(name, documentation, moment)


def _one(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"document_api_{name}", documentation, value)


def _by(label: str, name: str, documentation: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with one label. prometheus-client's own Gauge would be shared between processes."""
    family = GaugeMetricFamily(f"document_api_{name}", documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
