"""From settings to running services: the only module that names concrete adapters."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from app import idempotency
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService, forget_expired as forget_expired_logins
from app.auth.tokens import AccessTokens, development_secret
from app.database import Database
from app.database.sqlite import SqliteDatabase
from app.dispatch.base import Carrier, Dispatcher
from app.dispatch.in_process import InProcessDispatcher
from app.dispatch.nowhere import Nowhere
from app.documents.claim import REFRESH, Claim
from app.documents.gate import Gate
from app.documents.orphans import Orphans, expire_uploads
from app.documents.service import DocumentService
from app.errors import ConfigurationError
from app.processing.runner import Runner
from app.processing.service import ProcessingService
from app.processing.sweeper import Sweeper
from app.processing.watch import JobWatch
from app.processors.base import Processor
from app.processors.simulated import SimulatedProcessor
from app.processors.text import TextProcessor
from app.server.health import Health
from app.settings import Settings
from app.settings.broker import Place
from app.settings.storage import Bucket, Folder
from app.storage.base import Storage
from app.storage.local import LocalStorage
from app.telemetry import faults
from app.transfer import Transfer
from app.upkeep import Chore, Upkeep
from app.uploads.service import UploadService
from app.uploads.urls import OwnUrls

OPERATORS_PATIENCE = 600.0  # seconds that a statement may take where nobody waits for an answer

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
    uploads: UploadService
    processing: ProcessingService
    dispatcher: Carrier
    runner: Runner
    sweeper: Sweeper
    claim: Claim
    orphans: Orphans
    upkeep: Upkeep
    watch: JobWatch
    health: Health

    async def open(self, *, dispatching: bool = True, claiming: bool = True) -> None:
        """First thing, in the running event loop. Raises ConfigurationError, DatabaseUnavailable, StorageFull, and then
        lets go of everything. Who is not `dispatching` neither sends nor follows hints. Who is not `claiming` the files
        for this database must not remove any."""
        try:
            await self.storage.open()
            if dispatching:
                await self.dispatcher.open()
            await asyncio.to_thread(self.db.migrate)
            if claiming:
                await self.claim.begin()
        except BaseException:
            await self.close()
            raise

    async def run(self) -> None:
        """What goes on in the background, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sweeper.run())
            tasks.create_task(self.upkeep.run())
            tasks.create_task(self.watch.run())
            tasks.create_task(self.dispatcher.run())

    async def drain(self, seconds: float) -> None:
        """First thing on SIGTERM: fail readiness, claim no more, let jobs end within `seconds` or give them back."""
        self.health.draining = True
        self.watch.close()
        self.sweeper.stop()
        self.dispatcher.stop()
        await self.runner.drain(seconds)

    async def close(self) -> None:
        """Last thing, after `run` was cancelled: let go of everything."""
        await self.drain(0)
        await self.sweeper.close()
        await self.dispatcher.close()
        await self.claim.end()
        self.hasher.close()
        await self.storage.close()
        await self.db.close()


def build(settings: Settings, *, worker: bool = False) -> Services:
    """Connect the parts that the settings ask for: in a server process or, where there is a broker, in a worker."""
    _prepare_process(settings)
    name = f"{socket.gethostname()}:{os.getpid()}"
    db = _database(settings)
    storage = _storage(settings)
    processors = {processor.name: processor for processor in PROCESSORS}
    gate = Gate(settings)
    claim = Claim(db, storage, actor=f"worker:{name}")
    orphans = Orphans(db, storage, claim, settings.orphan_grace_seconds)
    upkeep = Upkeep(db, _chores(db, storage, claim, orphans, settings, actor=f"worker:{name}"))
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else development_secret(settings.data_dir)
    hasher = PasswordHasher()
    watch = JobWatch(db)
    runner = Runner(db=db, storage=storage, processors=processors, watch=watch, settings=settings, name=name)
    dispatcher = _dispatcher(settings, runner, worker=worker)
    return Services(
        settings=settings,
        db=db,
        storage=storage,
        hasher=hasher,
        auth=AuthService(db, hasher, _access_tokens(settings, secret), settings),
        documents=DocumentService(db, storage, gate, settings, claim.alarm),
        uploads=UploadService(db, storage, gate, OwnUrls(secret), settings),
        processing=ProcessingService(db, dispatcher, processors, watch, settings),
        dispatcher=dispatcher,
        runner=runner,
        sweeper=Sweeper(
            db=db,
            dispatcher=dispatcher,
            freed=runner.freed,
            watch=watch,
            settings=settings,
            name=name,
        ),
        claim=claim,
        orphans=orphans,
        upkeep=upkeep,
        watch=watch,
        health=Health(
            db,
            {"database": db.check, "storage": storage.check},
            {"broker": lambda: dispatcher.alarm, "storage": claim.alarm, "upkeep": upkeep.alarm},
        ),
    )


def _chores(
    db: Database, storage: Storage, claim: Claim, orphans: Orphans, settings: Settings, *, actor: str
) -> tuple[Chore, ...]:
    expire = partial(expire_uploads, db, storage, claim, grace=settings.orphan_grace_seconds, actor=actor)
    often = settings.lease_seconds / 2
    return (
        Chore("mark", REFRESH, claim.refresh),
        Chore("idempotency-keys", often, partial(idempotency.forget_expired, db)),
        Chore("logins", often, partial(forget_expired_logins, db)),
        Chore("uploads", often, expire),
        Chore("orphan-files", settings.orphan_grace_seconds, orphans.sweep, shared=True),
    )


def build_transfer(source: Settings, target: Settings, *, rows: bool, files: bool) -> Transfer:
    """Connect a transfer into what `target` names. Raises ConfigurationError when there is nothing to bring, or when it
    would be brought to where it is."""
    _prepare_process(target)
    if rows:
        _refuse_pointless("DATABASE_URL", _place_of_database(source), _place_of_database(target))
    if files:
        _refuse_pointless("STORAGE_URL", _place_of_files(source), _place_of_files(target))
    return Transfer(
        target_db=_database(target, statement_timeout=OPERATORS_PATIENCE),
        source_db=_database(source, statement_timeout=OPERATORS_PATIENCE) if rows else None,
        source_storage=_storage(source) if files else None,
        target_storage=_storage(target) if files else None,
    )


async def refuse_unusable(settings: Settings) -> None:
    """Before there are server processes: migrate, and raise what they would stumble over one by one.

    That is ConfigurationError, DatabaseUnavailable, StorageFull.
    """
    _prepare_process(settings)
    async with AsyncExitStack() as opened:
        storage = _storage(settings)
        await storage.open()
        opened.push_async_callback(storage.close)
        if settings.broker is not None:
            carrier = _broker(settings.broker, _run_nothing, places=0, otherwise=Nowhere())
            await carrier.open()
            await carrier.close()
        db = _database(settings)
        opened.push_async_callback(db.close)
        await asyncio.to_thread(db.migrate)
        await Claim(db, storage, actor="operator").begin()


def _dispatcher(settings: Settings, runner: Runner, *, worker: bool) -> Carrier:
    in_process = InProcessDispatcher(runner)
    if settings.broker is None:
        return in_process
    otherwise = in_process if worker else Nowhere()
    return _broker(settings.broker, runner.run, settings.job_concurrency if worker else 0, otherwise)


def _broker(place: Place, run: Callable[[UUID], Awaitable[None]], places: int, otherwise: Dispatcher) -> Carrier:
    from app.dispatch.broker import BrokerDispatcher, Consumer  # noqa: PLC0415 - taskiq takes half a second to import

    return BrokerDispatcher(place, Consumer(run, places), otherwise)


async def _run_nothing(job_id: UUID) -> None:
    pass


def _storage(settings: Settings) -> Storage:
    place = settings.storage
    if isinstance(place, Folder):
        with _writable("STORAGE_URL"):
            return LocalStorage(place.path)
    from app.storage.s3 import S3Storage  # noqa: PLC0415 - the SDK takes half a second to import

    return S3Storage(place, copies=settings.data_dir / "copies", longest=settings.upload_max_seconds)


def _database(settings: Settings, *, statement_timeout: float | None = None) -> Database:
    if settings.postgresql_url is None:
        with _writable("DATABASE_URL"):
            return SqliteDatabase(settings.database_file)
    from app.database.postgresql import PostgresqlDatabase  # noqa: PLC0415 - its driver takes 50 ms to import

    return PostgresqlDatabase(
        settings.postgresql_url,
        pool_size=settings.database_pool_size,
        statement_timeout=statement_timeout or settings.database_statement_timeout,
    )


@contextmanager
def _writable(variable: str) -> Iterator[None]:
    """A folder must take what the adapter makes in it at once."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{variable}: {error.filename}: {error.strerror}") from None


def _place_of_database(settings: Settings) -> Path | str:
    return settings.postgresql_url or settings.database_file.resolve()


def _place_of_files(settings: Settings) -> Path | Bucket:
    place = settings.storage
    return place.path.resolve() if isinstance(place, Folder) else place


def _refuse_pointless(variable: str, source: Path | Bucket | str, target: Path | Bucket | str) -> None:
    if source == target:
        raise ConfigurationError(f"{variable} names what is to be transferred: set it to where that shall go")
    if isinstance(source, Path) and not source.exists():
        raise ConfigurationError(f"there is nothing to transfer at {source}")


def _prepare_process(settings: Settings) -> None:
    os.umask(0o077)  # what users store is no other account's to read
    if settings.fault:
        point, _, nth = settings.fault.partition(":")
        faults.arm(point, int(nth))


def _access_tokens(settings: Settings, secret: str) -> AccessTokens:
    return AccessTokens(
        secret, issuer=settings.jwt_issuer, audience=settings.jwt_audience, ttl=settings.access_token_ttl
    )
