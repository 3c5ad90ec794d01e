"""Pausing processors: their jobs are accepted and wait, in all processes, until somebody resumes them."""

from collections.abc import Collection

from sqlalchemy import Connection

from app import events
from app.auth.credentials import required
from app.auth.principal import Principal
from app.database import Database
from app.errors import NotFound
from app.events.catalogue.operators import ProcessorPaused, ProcessorResumed
from app.jobs import pauses
from app.operators.schemas import PausedProcessor
from app.processing.queues import queue_of


class PausedProcessors:
    """Pauses and resumes processors by their names. `offered` are those of this process."""

    def __init__(self, db: Database, offered: Collection[str]) -> None:
        self._db = db
        self.offered = offered

    async def all(self) -> list[PausedProcessor]:
        """Those that are paused."""
        return [PausedProcessor.of(pause) for pause in await self._db.read(pauses.current)]

    async def pause(self, name: str, reason: str | None, principal: Principal | None = None) -> PausedProcessor:
        """Have nobody claim its jobs. If it is paused already, the reason stays. Raises NotFound."""
        if name not in self.offered:
            raise self._unknown

        def work(conn: Connection) -> PausedProcessor:
            if pauses.begin(conn, queue_of(name), reason):
                events.append(conn, ProcessorPaused(processor=name, reason=reason))
            return next(PausedProcessor.of(each) for each in pauses.current(conn) if each.queues == queue_of(name))

        return await self._db.write(required(principal, work))

    async def resume(self, name: str) -> None:
        """Have its jobs claimed again. Raises NotFound if it is neither paused nor offered."""

        def work(conn: Connection) -> None:
            if pauses.end(conn, queue_of(name)):
                events.append(conn, ProcessorResumed(processor=name))
            elif name not in self.offered:
                raise self._unknown

        await self._db.write(work)

    @property
    def _unknown(self) -> NotFound:
        return NotFound(f"No processor has this name. The processors are: {', '.join(self.offered)}.")
