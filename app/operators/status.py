"""The state of the whole service on one page: queues, processes, alarms, upkeep, disks."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from app import VERSION, migrations
from app.database import now, time_of
from app.files import backups
from app.jobs import pauses, repository
from app.jobs.models import IS_HELD, IS_QUEUED, JobState, jobs
from app.operators import processes
from app.operators.schemas import PausedProcessor
from app.processing.queues import processor_of
from app.quotas.reserve import Reserve
from app.upkeep import chores
from app.webhooks.deliveries import QUEUE


class Queue(BaseModel):
    """The unfinished jobs of a processor in one state."""

    processor: str
    state: JobState
    jobs: int
    oldest_seconds: float = Field(
        description="QUEUED: since the first of them was due. Otherwise: since the first attempt of the oldest."
    )


class Deliveries(BaseModel):
    """What webhooks are to be told."""

    waiting: int
    under_way: int
    oldest_seconds: float = Field(description="Since the first of those that wait was due.")


class Process(BaseModel):
    """A server or a worker, and the attempts that it is at."""

    name: str = Field(examples=["worker:host:4711"])
    kind: str | None = Field(description="`server` or `worker`; null: it holds jobs, and has not been heard of.")
    version: str | None
    capacity: int | None = Field(description="Jobs that it runs at once.")
    started_at: datetime | None
    seen_at: datetime | None
    attempts: int = Field(description="Attempts under way.")
    longest_seconds: float | None = Field(description="Since the first attempt of the job that it is at for longest.")
    heartbeat_at: datetime | None = Field(description="When it renewed a lease last.")
    alarms: dict[str, str]


class ChoreRun(BaseModel):
    """A chore that one process does for all."""

    name: str
    last_run_at: datetime
    next_run_at: datetime


class Disk(BaseModel):
    """A disk of the process that answers."""

    folder: str = Field(examples=["data"])
    free: int
    size: int


class Disks(BaseModel):
    """The disks of the process that answers, and whether too little is left on one of them."""

    items: list[Disk]
    reserve: str | None = Field(description="Which disk is almost full, and what follows.")


class ServiceStatus(BaseModel):
    """The state of the service."""

    version: str
    database: str = Field(examples=["postgresql"])
    revision: str | None = Field(description="Of the database's schema.", examples=["0018"])
    at: datetime = Field(description="The database's time.")
    jobs: dict[str, int] = Field(description="All jobs, by state.")
    dead_letters: int
    queues: list[Queue]
    deliveries: Deliveries
    paused: list[PausedProcessor]
    processes: list[Process]
    alarms: dict[str, str] = Field(description="Those of the process that answers.")
    upkeep: list[ChoreRun]
    last_backup_at: datetime | None = Field(description="When the last backup was complete.")
    disks: Disks


class AtWork(NamedTuple):
    """That part of it which tells of processes and their work: little is read for it."""

    at: datetime
    queues: list[Queue]
    deliveries: Deliveries
    paused: list[PausedProcessor]
    processes: list[Process]


_QUEUED: ColumnElement[str] = literal_column(f"'{JobState.QUEUED}'").label("state")


def disks(folders: Mapping[str, Path], reserve: Reserve) -> Disks:
    """Look at the disks of the folders. One that cannot be looked at is left out. Blocks."""
    found = []
    for name, folder in folders.items():
        with suppress(OSError):
            disk = shutil.disk_usage(folder)
            found.append(Disk(folder=name, free=disk.free, size=disk.total))
    return Disks(items=found, reserve=reserve.alarm())


def read(conn: Connection, every: Mapping[str, float], disks: Disks, alarms: Mapping[str, str]) -> ServiceStatus:
    """Read it from the database. `every`: seconds between two runs of each chore."""
    totals = repository.totals(conn, beside=QUEUE)
    return ServiceStatus(
        version=VERSION,
        database=conn.dialect.name,
        revision=migrations.revision(conn),
        jobs=dict(totals.by_state),
        dead_letters=totals.dead,
        **at_work(conn)._asdict(),
        alarms=dict(alarms),
        upkeep=_upkeep(conn, every),
        last_backup_at=_last_backup(conn),
        disks=disks,
    )


def at_work(conn: Connection) -> AtWork:
    """Read only that part."""
    return AtWork(
        at=time_of(conn),
        queues=_queues(conn),
        deliveries=_deliveries(conn),
        paused=[PausedProcessor.of(pause) for pause in pauses.current(conn)],
        processes=_processes(conn),
    )


def _queues(conn: Connection) -> list[Queue]:
    """Each by one of the indexes of unfinished jobs. The versions of a processor are added up."""
    found: dict[tuple[str, str], Queue] = {}
    counted = select(jobs.c.queue, func.count().label("number"), now().label("now")).where(jobs.c.queue != QUEUE)
    queued = counted.add_columns(func.min(jobs.c.run_at).label("oldest"), _QUEUED).where(IS_QUEUED)
    held = counted.add_columns(func.min(jobs.c.started_at).label("oldest"), jobs.c.state).where(IS_HELD)
    for query in (queued.group_by(jobs.c.queue), held.group_by(jobs.c.queue, jobs.c.state)):
        for row in conn.execute(query):
            processor, age = processor_of(row.queue), _seconds(row.oldest, row.now)
            each = found.setdefault((processor, row.state), _empty(processor, row.state))
            each.jobs += row.number
            each.oldest_seconds = max(each.oldest_seconds, age)
    return [found[key] for key in sorted(found)]


def _deliveries(conn: Connection) -> Deliveries:
    delivering = select(func.count()).where(jobs.c.queue == QUEUE)
    waiting, under_way = (conn.scalar(delivering.where(state)) or 0 for state in (IS_QUEUED, IS_HELD))
    return Deliveries(waiting=waiting, under_way=under_way, oldest_seconds=round(repository.due_for(conn, QUEUE), 3))


def _empty(processor: str, state: str) -> Queue:
    return Queue(processor=processor, state=JobState(state), jobs=0, oldest_seconds=0.0)


def _processes(conn: Connection) -> list[Process]:
    oldest, latest = func.min(jobs.c.started_at).label("oldest"), func.max(jobs.c.locked_at).label("latest")
    held = select(jobs.c.locked_by, func.count().label("number"), oldest, latest, now().label("now")).where(IS_HELD)
    nobody: dict[str, Any] = {"attempts": 0, "longest_seconds": None, "heartbeat_at": None}
    found = {row["name"]: nobody | row for row in processes.there(conn)}
    for row in conn.execute(held.group_by(jobs.c.locked_by)):
        unknown = dict.fromkeys(("kind", "version", "capacity", "started_at", "seen_at")) | {"alarms": {}}
        each = found.setdefault(row.locked_by, unknown | {"name": row.locked_by})
        busy = {"attempts": row.number, "longest_seconds": _seconds(row.oldest, row.now), "heartbeat_at": row.latest}
        each.update(busy)
    return [Process(**found[name]) for name in sorted(found)]


def _upkeep(conn: Connection, every: Mapping[str, float]) -> list[ChoreRun]:
    """Of a chore that is under way, the latest moment at which its process held it."""
    known = [row for row in conn.execute(select(chores).order_by(chores.c.name)) if row.name in every]
    return [
        ChoreRun(name=row.name, last_run_at=row.until - timedelta(seconds=every[row.name]), next_run_at=row.until)
        for row in known
    ]


def _last_backup(conn: Connection) -> datetime | None:
    seconds = backups.last(conn)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _seconds(since: datetime | None, until: datetime) -> float:
    return max(0.0, round((until - since).total_seconds(), 3)) if since else 0.0
