"""Maintenance as named chores: what runs now and then in every process, and never as a job.

`app/wiring/chores.py` lists them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Column, Connection, String, Table, or_

from app.database import Database, UTCDateTime, insert_on_conflict, metadata, now
from app.errors import AppError
from app.telemetry import metrics

log = structlog.get_logger()

# Shared chores, and until when each is reserved or done.
chores = Table(
    "chores",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("until", UTCDateTime, nullable=False),
)


class Skipped(Exception):
    """A chore could not, or must not, be done now. The message is one line for the operator."""


class Postponed(Skipped):
    """As Skipped, but all is well: it will be done later."""


@dataclass(frozen=True, slots=True)
class Chore:
    """A piece of maintenance that is run every `every` seconds, first that long after the start.

    If it is `shared`, one process does it for all that use the database.
    """

    name: str
    every: float
    run: Callable[[], Awaitable[None]]
    shared: bool = False


class Upkeep:
    """Runs chores, each on its own: one that fails is repeated later, and stops no other."""

    def __init__(self, db: Database, chores: Sequence[Chore]) -> None:
        self._db = db
        self._chores = chores
        self._skipped: dict[str, str] = {}
        self._postponed: dict[str, str] = {}

    @property
    def shared(self) -> dict[str, float]:
        """The chores that one process does for all, and how many seconds are between two runs of each."""
        return {chore.name: chore.every for chore in self._chores if chore.shared}

    def alarm(self) -> str | None:
        """The chores whose latest run was skipped, and why; None if there are none, but for what was postponed."""
        return _told(self._skipped)

    async def run(self) -> None:
        """Run every chore again and again, until cancelled."""
        async with asyncio.TaskGroup() as loops:
            for chore in self._chores:
                metrics.upkeep_interval.labels(chore.name).set(chore.every)
                metrics.upkeep_succeeded.labels(chore.name).set_to_current_time()
                loops.create_task(self._repeat(chore))

    async def once(self) -> None:
        """Run every chore now, also those that another process may be at. Raises Skipped when one was skipped."""
        for chore in self._chores:
            await self._guarded(chore.name, partial(_do, chore))
        if reason := _told(self._skipped | self._postponed):
            raise Skipped(reason)

    async def _repeat(self, chore: Chore) -> None:
        run = partial(self._run_shared if chore.shared else _do, chore)
        while True:
            await asyncio.sleep(chore.every)
            await self._guarded(chore.name, run)

    async def _guarded(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        postponed = self._postponed.pop(name, None)
        try:
            await run()
        except Postponed as error:
            if postponed is None:
                log.info("upkeep.postponed", chore=name, reason=str(error))
            metrics.upkeep_succeeded.labels(name).set_to_current_time()  # or an alert would take it for stuck
            self._postponed[name] = str(error)
            self._skipped.pop(name, None)
        except (AppError, Skipped) as error:
            reason = error.code if isinstance(error, AppError) else str(error)
            if reason != self._skipped.get(name):  # some chores are tried every second
                log.warning("upkeep.skipped", chore=name, reason=reason)
            self._skip(name, reason)
        except Exception:
            self._skip(name, "failed, see the log")
            log.exception("upkeep.failed", chore=name)
        else:
            self._skipped.pop(name, None)

    def _skip(self, name: str, reason: str) -> None:
        self._skipped[name] = reason
        metrics.upkeep_skipped.labels(name).inc()

    async def _run_shared(self, chore: Chore) -> None:
        """Run a chore unless another process is at it, or has begun it less than `every` seconds ago."""
        if not await self._db.write(partial(_begin, chore=chore)):
            return
        holding = asyncio.create_task(self._hold(chore))
        try:
            await _do(chore)
        finally:
            holding.cancel()

    async def _hold(self, chore: Chore) -> None:
        """Keep others from a chore that takes long."""
        holding = chores.update().where(chores.c.name == chore.name).values(until=now(chore.every))
        while True:
            await asyncio.sleep(chore.every / 3)
            try:
                await self._db.write(lambda conn: conn.execute(holding))
            except AppError as error:
                log.warning("upkeep.not_held", chore=chore.name, reason=error.code)


def _told(reasons: Mapping[str, str]) -> str | None:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or None


async def _do(chore: Chore) -> None:
    await chore.run()
    metrics.upkeep_succeeded.labels(chore.name).set_to_current_time()


def _begin(conn: Connection, chore: Chore) -> bool:
    """Whether the chore is due, and from now on this process's."""
    insert = insert_on_conflict(conn, chores).values(name=chore.name, until=now(chore.every))
    due = insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"until": insert.excluded.until},
        where=or_(chores.c.until <= now(), chores.c.until > now(chore.every)),
    )
    return bool(conn.execute(due).rowcount)
