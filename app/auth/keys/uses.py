"""When and from where keys were used last: remembered here, and stored now and then, so that no request writes."""

import time
from typing import NamedTuple
from uuid import UUID

import structlog

from app.auth.keys import repository
from app.database import Database
from app.errors import AppError
from app.telemetry import context

log = structlog.get_logger()

INTERVAL = 60.0  # seconds between two times that uses are stored
_MAX_ADDRESS = 64  # characters


class _Use(NamedTuple):
    at: float  # by `time.monotonic`
    address: str | None


class Uses:
    """The last use of each key that this process has seen since it stored them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._last: dict[UUID, _Use] = {}

    def note(self, key_id: UUID) -> None:
        """The context's client uses the key now. Costs no look into the database."""
        self._last[key_id] = _Use(time.monotonic(), context.client.get())

    async def flush(self) -> None:
        """Store them, in one transaction. Raises what `write` raises, and then they are kept for the next time."""
        if not self._last:
            return
        last, self._last = self._last, {}
        # In the order of the ids, so that no two processes wait for each other.
        uses = [
            {
                "key_id": key_id,
                "seconds": use.at - time.monotonic(),
                "address": use.address and use.address[:_MAX_ADDRESS],
            }
            for key_id, use in sorted(last.items())
        ]
        try:
            await self._db.write(lambda conn: repository.note_uses(conn, uses))
        except BaseException:
            self._last = last | self._last
            raise

    async def close(self) -> None:
        """Store them for the last time. Without a database they are lost."""
        try:
            await self.flush()
        except AppError as error:
            log.warning("keys.uses_lost", reason=error.code)
