"""From settings to running services: the only module that names concrete adapters."""

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import Any

from app import faults
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService
from app.auth.tokens import AccessTokens, development_secret
from app.database import Database
from app.database.postgresql import PostgresqlDatabase
from app.database.sqlite import SqliteDatabase
from app.dispatch.in_process import InProcessDispatcher
from app.documents.service import DocumentService
from app.health import Health
from app.processing.runner import Runner
from app.processing.service import ProcessingService
from app.processing.sweeper import Sweeper
from app.processing.watch import JobWatch
from app.processors.base import Processor
from app.processors.simulated import SimulatedProcessor
from app.processors.text import TextProcessor
from app.settings import Settings
from app.storage.base import Storage
from app.storage.local import LocalStorage
from app.storage_url import Folder

PROCESSORS: tuple[Processor[Any], ...] = (SimulatedProcessor(), TextProcessor())


@dataclass(frozen=True, slots=True)
class Services:
    """Everything one process runs."""

    settings: Settings
    db: Database
    storage: Storage
    hasher: PasswordHasher
    auth: AuthService
    documents: DocumentService
    processing: ProcessingService
    runner: Runner
    sweeper: Sweeper
    watch: JobWatch
    health: Health

    async def open(self) -> None:
        """First thing, in the running event loop. Raises ConfigurationError, DatabaseUnavailable, StorageFull, and then
        lets go of everything."""
        try:
            await self.storage.open()
            await asyncio.to_thread(self.db.migrate)
        except BaseException:
            await self.close()
            raise

    async def run(self) -> None:
        """What goes on in the background, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sweeper.run())
            tasks.create_task(self.watch.run())

    async def drain(self, seconds: float) -> None:
        """First thing on SIGTERM: fail readiness, claim no more, let jobs end within `seconds` or give them back."""
        self.health.draining = True
        self.watch.close()
        self.sweeper.stop()
        await self.runner.drain(seconds)

    async def close(self) -> None:
        """Last thing, after `run` was cancelled: let go of everything."""
        await self.drain(0)
        await self.sweeper.close()
        self.hasher.close()
        await self.storage.close()
        await self.db.close()


def build(settings: Settings) -> Services:
    """Connect the parts that the settings ask for."""
    _prepare_process(settings)
    name = f"{socket.gethostname()}:{os.getpid()}"
    db = _database(settings)
    storage = _storage(settings)
    processors = {processor.name: processor for processor in PROCESSORS}
    hasher = PasswordHasher()
    watch = JobWatch(db)
    runner = Runner(db=db, storage=storage, processors=processors, watch=watch, settings=settings, name=name)
    dispatcher = InProcessDispatcher(runner.run)
    return Services(
        settings=settings,
        db=db,
        storage=storage,
        hasher=hasher,
        auth=AuthService(db, hasher, _access_tokens(settings), settings),
        documents=DocumentService(db, storage, settings),
        processing=ProcessingService(db, dispatcher, processors, watch, settings),
        runner=runner,
        sweeper=Sweeper(db=db, storage=storage, dispatcher=dispatcher, watch=watch, settings=settings, name=name),
        watch=watch,
        health=Health(db, {"database": db.check, "storage": storage.check}),
    )


async def refuse_unusable(settings: Settings) -> None:
    """Before there are server processes: migrate, and raise what they would stumble over one by one.

    That is ConfigurationError, DatabaseUnavailable, StorageFull.
    """
    _prepare_process(settings)
    storage = _storage(settings)
    await storage.open()
    await storage.close()
    db = _database(settings)
    try:
        await asyncio.to_thread(db.migrate)
    finally:
        await db.close()


def _storage(settings: Settings) -> Storage:
    place = settings.storage
    if isinstance(place, Folder):
        return LocalStorage(place.path)
    from app.storage.s3 import S3Storage  # noqa: PLC0415 - the SDK takes half a second to import

    return S3Storage(place, copies=settings.data_dir / "copies", longest=settings.upload_max_seconds)


def _database(settings: Settings) -> Database:
    if settings.postgresql_url is None:
        return SqliteDatabase(settings.database_file)
    return PostgresqlDatabase(
        settings.postgresql_url,
        pool_size=settings.database_pool_size,
        statement_timeout=settings.database_statement_timeout,
    )


def _prepare_process(settings: Settings) -> None:
    os.umask(0o077)  # what users store is no other account's to read
    if settings.fault:
        point, _, nth = settings.fault.partition(":")
        faults.arm(point, int(nth))


def _access_tokens(settings: Settings) -> AccessTokens:
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else development_secret(settings.data_dir)
    return AccessTokens(
        secret, issuer=settings.jwt_issuer, audience=settings.jwt_audience, ttl=settings.access_token_ttl
    )
