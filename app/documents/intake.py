"""A file is stored before its row is committed: how it is kept if a row needs it, and removed if none does."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from app.database import Database
from app.errors import (
    AppError,
    Conflict,
    Forbidden,
    OutcomeUnknown,
    PreconditionFailed,
    StorageUnavailable,
)
from app.files.models import File
from app.files.removal import Removal
from app.idempotency import InProgress
from app.telemetry import metrics


@dataclass(slots=True)
class Pending:
    """A file that is stored, and whose row is not committed yet. `needed`: whether a row needs it, once it is."""

    longest: float  # seconds
    needed: bool = False
    since: float = field(default_factory=time.time)

    def require(self) -> None:
        """Raise StorageUnavailable if the process was paused, or its clock jumped: the file may have been swept as an
        orphan."""
        if time.time() - self.since > self.longest:
            raise StorageUnavailable


class Intake:
    """What all who receive files have in common. `grace`: seconds after which a file without a row may be swept."""

    def __init__(self, db: Database, removal: Removal, *, grace: float) -> None:
        self.in_progress = InProgress(db)
        self._db = db
        self.removal = removal
        self._grace = grace

    async def refuse_in_vain(self, owner_id: UUID, key: str | None, check: Callable[[Connection], None]) -> None:
        """Raise before a body arrives what would be raised afterwards. A replay is not refused."""
        try:
            await self._db.read(check)
        except (PreconditionFailed, Conflict, Forbidden):
            if key is None or not await self.in_progress.is_done(owner_id, key):
                raise

    @asynccontextmanager
    async def recording(self, file: File) -> AsyncIterator[Pending]:
        """In the block the row of a file that was stored just now is committed. Removes the file if that is refused, or
        if no row needs it."""
        pending = Pending(self._grace / 2)
        try:
            yield pending
        except OutcomeUnknown:
            raise  # a row may need the file; if none does, upkeep removes it
        except AppError:
            await self.removal.unrecorded(file.key)
            raise
        if pending.needed:
            metrics.uploaded_bytes.inc(file.size)
        else:
            await self.removal.unrecorded(file.key)
