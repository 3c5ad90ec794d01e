"""From settings to running services: the only module that names concrete adapters."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import URL, Connection

from app import idempotency
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService, forget_expired as forget_expired_logins
from app.auth.tokens import AccessTokens, development_secret
from app.database import Database
from app.database.sqlite import SqliteDatabase
from app.documents import repository as documents
from app.documents.service import DocumentService
from app.documents.uploads import UploadService, expire_uploads
from app.errors import ConfigurationError
from app.files import repository as files
from app.files.claim import REFRESH, Claim
from app.files.orphans import Orphans
from app.files.receive import Receiver
from app.files.signed_urls import OwnUrls
from app.jobs import repository as jobs
from app.jobs.dispatch.base import Dispatcher, Puller
from app.jobs.dispatch.broker import BrokerDispatcher
from app.jobs.dispatch.in_process import InProcessDispatcher
from app.jobs.kinds import Kind
from app.jobs.rescuer import UNSERVED_SECONDS, Rescuer
from app.jobs.runner import Runner
from app.jobs.watch import JobWatch
from app.processing.kind import ProcessKind
from app.processing.service import ProcessingService
from app.processors.base import Processor
from app.processors.simulated import SimulatedProcessor
from app.processors.text import TextProcessor
from app.settings import Settings
from app.settings.storage import Bucket
from app.storage.base import Storage
from app.storage.local import LocalStorage
from app.telemetry import context, faults
from app.telemetry.loop import LoopWatch
from app.telemetry.metrics import gauge_by
from app.transfer import Transfer
from app.upkeep import Chore, Upkeep

OPERATOR_STATEMENT_TIMEOUT = 600.0  # seconds that a statement may take where nobody waits for an answer

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
    dispatcher: Dispatcher
    kinds: Mapping[str, Kind]
    runner: Runner
    rescuer: Rescuer
    claim: Claim
    orphans: Orphans
    upkeep: Upkeep
    watch: JobWatch

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What this process needs in order to serve. A check raises when it does not work."""
        return {"database": self.db.check, "storage": self.storage.check}

    @property
    def alarms(self) -> dict[str, Callable[[], str | None]]:
        """What an operator should look into. An alarm returns None when all is well."""
        return {
            "broker": lambda: self.dispatcher.alarm,
            "queues": lambda: self.rescuer.alarm,
            "storage": self.claim.alarm,
            "upkeep": self.upkeep.alarm,
        }

    async def gauges(self) -> list[GaugeMetricFamily]:
        """Read the gauges from the database."""
        return await self.db.read(partial(_gauges, queues=self.runner.queues))

    async def open(self, *, dispatching: bool = True, claiming: bool = True) -> None:
        """Connect to everything, in the running event loop, and migrate. A failure disconnects again.

        Without `dispatching`, wake-ups are neither sent nor received. Without `claiming` the files for this database,
        none may be removed. Raises ConfigurationError, DatabaseUnavailable, StorageFull.
        """
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
        context.actor.set(context.worker())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(LoopWatch(self.runner.describe).run())
            tasks.create_task(self.runner.run())
            tasks.create_task(self.rescuer.run())
            tasks.create_task(self.upkeep.run())
            tasks.create_task(self.watch.run())
            tasks.create_task(self.dispatcher.run())

    async def drain(self, seconds: float) -> None:
        """First thing on SIGTERM: claim no more, let jobs end within `seconds` or give them back."""
        self.watch.close()
        self.dispatcher.stop()
        await self.runner.drain(seconds)

    async def close(self) -> None:
        """Close all connections. Call it last, after `run` was cancelled."""
        await self.drain(0)
        await self.dispatcher.close()
        await self.claim.end()
        self.hasher.close()
        await self.storage.close()
        await self.db.close()


def build(settings: Settings, *, worker: bool = False) -> Services:
    """Connect the parts that the settings ask for, in a server process or in a worker."""
    _prepare_process(settings)
    db = _database(settings)
    storage = _storage(settings)
    processors = {processor.name: processor for processor in PROCESSORS}
    receiver = Receiver(storage, settings)
    claim = Claim(db, storage)
    orphans = Orphans(db, storage, claim, settings.orphan_grace_seconds)
    upkeep = Upkeep(db, _chores(db, claim, orphans, settings))
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else development_secret(settings.data_dir)
    hasher = PasswordHasher()
    watch = JobWatch(db)
    lease = settings.lease_seconds
    kinds = {
        kind.name: kind
        for kind in (
            ProcessKind(
                storage,
                processors,
                timeout=settings.job_timeout,
                max_result_bytes=settings.max_result_bytes,
            ),
        )
    }
    capacity = settings.job_concurrency if worker or settings.broker_url is None else 0
    runner = Runner(db, list(kinds.values()), watch, capacity=capacity, lease=lease)
    dispatcher = _dispatcher(settings, runner)
    return Services(
        settings=settings,
        db=db,
        storage=storage,
        hasher=hasher,
        auth=AuthService(db, hasher, _access_tokens(settings, secret), settings),
        documents=DocumentService(db, storage, receiver, claim, settings),
        uploads=UploadService(db, storage, receiver, OwnUrls(secret), settings),
        processing=ProcessingService(db, kinds, processors, watch, dispatcher.send, settings),
        dispatcher=dispatcher,
        kinds=kinds,
        runner=runner,
        rescuer=Rescuer(db, runner, kinds, watch, lease=lease),
        claim=claim,
        orphans=orphans,
        upkeep=upkeep,
        watch=watch,
    )


def _chores(db: Database, claim: Claim, orphans: Orphans, settings: Settings) -> tuple[Chore, ...]:
    often, grace = settings.lease_seconds / 2, settings.orphan_grace_seconds
    return (
        Chore("mark", REFRESH, claim.refresh),
        Chore("idempotency-keys", often, partial(idempotency.forget_expired, db)),
        Chore("logins", often, partial(forget_expired_logins, db)),
        Chore("uploads", often, partial(expire_uploads, db, orphans, grace=grace)),
        Chore("discarded-files", grace, partial(files.forget_discarded, db, grace), shared=True),
        Chore("orphan-files", grace, orphans.sweep, shared=True),
    )


def build_transfer(source: Settings, target: Settings, *, rows: bool, files: bool) -> Transfer:
    """Connect a transfer into what `target` names. Raises ConfigurationError when there is nothing to bring, or when it
    would be brought to where it is."""
    _prepare_process(target)
    if rows:
        _refuse_pointless("DATABASE_URL", source.database, target.database)
    if files:
        _refuse_pointless("STORAGE_URL", source.storage, target.storage)
    return Transfer(
        target_db=_database(target, statement_timeout=OPERATOR_STATEMENT_TIMEOUT),
        source_db=_database(source, statement_timeout=OPERATOR_STATEMENT_TIMEOUT) if rows else None,
        source_storage=_storage(source) if files else None,
        target_storage=_storage(target) if files else None,
    )


async def preflight(settings: Settings) -> None:
    """Migrate, and find out before there are server processes what each of them would fail on.

    Raises ConfigurationError, DatabaseUnavailable, StorageFull.
    """
    services = build(settings)
    await services.open()
    await services.close()


def _gauges(conn: Connection, queues: Sequence[str]) -> list[GaugeMetricFamily]:
    states, oldest = jobs.counts(conn)
    unserved = jobs.unserved(conn, queues, UNSERVED_SECONDS)
    return [
        gauge_by("status", "documents", "Documents by status.", documents.counts(conn)),
        gauge_by("state", "jobs", "Jobs by state.", states),
        GaugeMetricFamily("jobs_oldest_queued_seconds", "Age of the oldest job that is due and queued.", oldest),
        gauge_by("queue", "jobs_unserved", "Due jobs in queues that this process cannot serve.", unserved),
    ]


def _dispatcher(settings: Settings, puller: Puller) -> Dispatcher:
    return BrokerDispatcher(settings.broker_url, puller) if settings.broker_url else InProcessDispatcher(puller)


def _storage(settings: Settings) -> Storage:
    if isinstance(settings.storage, Path):
        with _writable("STORAGE_URL"):
            return LocalStorage(settings.storage)
    from app.storage.s3 import S3Storage  # noqa: PLC0415 - the SDK takes half a second to import

    return S3Storage(settings.storage, copies=settings.data_dir / "copies", longest=settings.upload_max_seconds)


def _database(settings: Settings, *, statement_timeout: float | None = None) -> Database:
    if isinstance(settings.database, Path):
        with _writable("DATABASE_URL"):
            return SqliteDatabase(settings.database)
    from app.database.postgresql import PostgresqlDatabase  # noqa: PLC0415 - its driver takes 50 ms to import

    return PostgresqlDatabase(
        settings.database.render_as_string(hide_password=False),
        pool_size=settings.database_pool_size,
        statement_timeout=statement_timeout or settings.database_statement_timeout,
    )


@contextmanager
def _writable(variable: str) -> Iterator[None]:
    """Turn an OSError into a ConfigurationError that names the variable."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{variable}: {error.filename}: {error.strerror}") from None


def _refuse_pointless(variable: str, source: Path | Bucket | URL, target: Path | Bucket | URL) -> None:
    source, target = (place.resolve() if isinstance(place, Path) else place for place in (source, target))
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
