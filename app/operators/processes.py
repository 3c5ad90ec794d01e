"""The processes of the service: each says every few seconds that it is there, and what its alarms are."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from sqlalchemy import JSON, Column, Connection, Integer, String, Table, delete, select

from app import VERSION
from app.database import Database, UTCDateTime, insert_on_conflict, metadata, now
from app.errors import AppError
from app.telemetry import context

log = structlog.get_logger()

INTERVAL = 10.0  # seconds
SILENT = 45.0  # seconds after which a process is taken for gone

processes = Table(
    "processes",
    metadata,
    # The actor of what it does by itself, which `jobs.locked_by` holds, too.
    Column("name", String(100), primary_key=True),
    Column("kind", String(10), nullable=False),
    Column("version", String(20), nullable=False),
    # Jobs that it runs at once.
    Column("capacity", Integer, nullable=False),
    Column("alarms", JSON, nullable=False),
    Column("started_at", UTCDateTime, nullable=False),
    Column("seen_at", UTCDateTime, nullable=False),
    info={"derived": True},  # they are not those of another database
)

Alarms = Mapping[str, Callable[[], str | None]]


class Presence:
    """Says that this process is there. `kind` is `server` or `worker`, and `capacity` how many jobs it runs at once."""

    def __init__(self, db: Database, kind: str, capacity: int, alarms: Alarms) -> None:
        self._db = db
        self._about = {"name": context.worker(), "kind": kind, "version": VERSION, "capacity": capacity}
        self._alarms = alarms
        self._announced = False

    async def run(self) -> None:
        """Say so again and again, until cancelled."""
        while True:
            try:
                await self.announce()
            except AppError as error:
                log.warning("process.not_announced", reason=error.code)
            except Exception:
                log.exception("process.not_announced")
            await asyncio.sleep(INTERVAL)

    async def announce(self) -> None:
        """Say so now."""
        row = self._about | {"alarms": raised(self._alarms)}
        await self._db.write(partial(_write, row=row, again=self._announced))
        self._announced = True


def raised(alarms: Alarms) -> dict[str, str]:
    """The alarms that have a text."""
    return {name: text for name, alarm in alarms.items() if (text := alarm())}


def there(conn: Connection) -> list[dict[str, Any]]:
    """The rows of the processes that are there."""
    query = select(processes).where(processes.c.seen_at > now(-SILENT)).order_by(processes.c.name)
    return [dict(row) for row in conn.execute(query).mappings()]


def _write(conn: Connection, row: Mapping[str, Any], *, again: bool) -> None:
    conn.execute(delete(processes).where(processes.c.seen_at <= now(-SILENT), processes.c.name != row["name"]))
    added = insert_on_conflict(conn, processes).values(**row, started_at=now(), seen_at=now())
    changed = {name: added.excluded[name] for name in (*row, "seen_at", *(() if again else ("started_at",)))}
    conn.execute(added.on_conflict_do_update(index_elements=["name"], set_=changed))
