"""Removes what has expired or was left behind. Runs in every process, never as a job.

Each step is a conditional statement, so any number of sweepers may run at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from app import idempotency
from app.auth import service as auth
from app.database import Database
from app.documents import repository as documents
from app.documents.service import document_of, storage_key
from app.errors import AppError
from app.settings import Settings
from app.storage.base import Storage

log = structlog.get_logger()

Step = Callable[[], Awaitable[None]]


class Sweeper:
    def __init__(self, *, db: Database, storage: Storage, settings: Settings, name: str) -> None:
        self._db = db
        self._storage = storage
        self._lease = settings.lease_seconds
        self._grace = settings.orphan_grace_seconds
        self._name = name
        self._stopped = False

    async def run(self) -> None:
        """Sweep until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.sweep_rows, self._lease / 2))
            loops.create_task(self._repeat(self.sweep_uploads, self._lease / 2))
            loops.create_task(self._repeat(self.sweep_files, self._grace))

    async def sweep_rows(self) -> None:
        """Forget expired idempotency keys and logins."""
        await self._db.write(idempotency.forget_expired)
        await self._db.write(auth.forget_expired)

    async def sweep_uploads(self) -> None:
        """Delete documents whose direct upload was never completed, and what was sent of them."""
        actor = f"worker:{self._name}"
        for document_id in await self._db.write(lambda conn: documents.expire(conn, self._grace, actor)):
            await self._storage.delete(storage_key(document_id))

    async def sweep_files(self) -> None:
        """Remove files that no document has: of uploads that died before their commit, and of deleted documents."""
        async for keys in self._storage.stale(self._grace):
            ids = [document_id for key in keys if (document_id := document_of(key))]
            for document_id in await self._db.read(partial(documents.without_document, ids=ids)):
                await self._storage.delete(storage_key(document_id))
                log.info("storage.orphan_removed", document_id=str(document_id))

    def stop(self) -> None:
        """Sweep no more: this process is about to stop, and others sweep too."""
        self._stopped = True

    async def _repeat(self, step: Step, pause: float) -> None:
        while not self._stopped:
            await self._guarded(step)
            await asyncio.sleep(pause)

    async def _guarded(self, step: Step) -> None:
        """A sweep that fails is repeated by the next; the sweeper itself never dies of one."""
        try:
            await step()
        except AppError as error:
            log.warning("sweeper.skipped", reason=error.code)
        except Exception:
            log.exception("sweeper.failed")
