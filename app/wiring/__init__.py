"""From settings to running services."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import UUID

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection

from app import VERSION, events
from app.accounts.erasure import Erasure
from app.accounts.service import Accounts
from app.audit.service import AuditTrail
from app.auth.attempts import Attempts
from app.auth.keys.service import ApiKeys
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService
from app.auth.tokens import AccessTokens, development_secret
from app.check.scrubber import Scrubber
from app.database import Database, after_commit
from app.documents.deletion import Deletion
from app.documents.feed import Feed
from app.documents.file_versions.replace import ReplaceService
from app.documents.file_versions.replacement import Replacement
from app.documents.file_versions.service import FileVersions
from app.documents.intake import Intake
from app.documents.pictures import Pictures
from app.documents.service import DocumentService
from app.documents.uploads import UploadService
from app.encryption import Encryption
from app.errors import AppError, StorageUnavailable
from app.events import Record
from app.events.catalogue.documents import DocumentChildrenPublished
from app.events.catalogue.jobs import JobQueued
from app.events.catalogue.service import SettingsStarted
from app.files.claim import Claim
from app.files.downloads import Downloads
from app.files.orphans import Orphans
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.signed_urls import OwnUrls
from app.files.stored import StoredFiles
from app.inbox.watcher import Watcher
from app.jobs import repository as jobs
from app.jobs.dispatch.base import Dispatcher
from app.jobs.kinds import Kind
from app.jobs.rescuer import Rescuer
from app.jobs.runner import Runner
from app.jobs.turns import Turns
from app.jobs.watch import JobWatch
from app.limiter import Usage
from app.operators import status
from app.operators.dependencies import Operators
from app.operators.processes import Presence, raised
from app.operators.status import ServiceStatus
from app.outbound import Outbound
from app.processing import previous
from app.processing.acceptance import Acceptance
from app.processing.answers import Answers
from app.processing.batch import Batches
from app.processing.bulk import BulkJobs
from app.processing.service import ProcessingService
from app.processors import sandbox
from app.quotas import Quotas
from app.quotas.reserve import Reserve
from app.remote.hints import Hints
from app.remote.queues import RemoteQueues
from app.remote.service import RemoteJobs
from app.settings import Settings
from app.storage.base import Storage
from app.telemetry import context
from app.telemetry.loop import LoopWatch
from app.upkeep import Upkeep
from app.web.rates import Rates
from app.webhooks.deliveries import QUEUE
from app.webhooks.service import WebhookService
from app.wiring import adapters, gauges
from app.wiring.chores import chores, hinting, scrubbing
from app.wiring.encryption import encryption, key_missing
from app.wiring.inbox import watcher
from app.wiring.operators import operators
from app.wiring.process import prepare_process
from app.wiring.processing import more_files, process_kind
from app.wiring.remote import remote_jobs, remote_queues
from app.wiring.webhooks import webhooks


@dataclass(frozen=True, slots=True)
class Services:
    """Everything one process runs."""

    settings: Settings
    db: Database
    storage: Storage
    encryption: Encryption
    hasher: PasswordHasher
    receiver: Receiver
    downloads: Downloads
    auth: AuthService
    keys: ApiKeys
    accounts: Accounts
    audit: AuditTrail
    documents: DocumentService
    pictures: Pictures
    deletion: Deletion
    replace: ReplaceService
    file_versions: FileVersions
    uploads: UploadService
    rates: Rates
    processing: ProcessingService
    batches: Batches
    bulk: BulkJobs
    answers: Answers
    dispatcher: Dispatcher
    kinds: Mapping[str, Kind]
    runner: Runner
    remote_queues: RemoteQueues
    remote: RemoteJobs
    hints: Hints
    outbound: Outbound
    deliverer: Runner
    webhooks: WebhookService
    rescuer: Rescuer
    claim: Claim
    orphans: Orphans
    inbox: Watcher | None
    scrubber: Scrubber
    upkeep: Upkeep
    watch: JobWatch
    reserve: Reserve
    feed: Feed
    operators: Operators
    kind: Literal["server", "worker"] = "server"

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What this process needs in order to serve. A check raises when it does not work."""
        return {"database": self.db.check, "storage": self.storage.check}

    @property
    def alarms(self) -> dict[str, Callable[[], str | None]]:
        """What an operator should look into. An alarm returns None when all is well."""
        return {
            "audit": lambda: adapters.audit_key_derived(self.settings),
            "limits": self.rates.alarm,
            "paused": self.runner.pauses.alarm,
            "broker": lambda: self.dispatcher.alarm,
            "disk": self.reserve.alarm,
            "encryption": lambda: key_missing(self.settings),
            "queues": lambda: self.rescuer.alarm,
            "hints": lambda: self.hints.alarm,
            "results": lambda: adapters.simulated(self.settings),
            "sandbox": sandbox.missing,
            "scrub": self.scrubber.alarm,
            "storage": self.claim.alarm,
            "upkeep": self.upkeep.alarm,
        }

    @property
    def usages(self) -> dict[str, Callable[[], Usage]]:
        """How much is in use of what requests and jobs wait for."""
        return {
            "jobs": lambda: self.runner.usage,
            "deliveries": lambda: self.deliverer.usage,
            "uploads": lambda: self.receiver.usage,
            "downloads": lambda: self.downloads.usage,
            "pictures": lambda: self.pictures.usage,
            "streams": lambda: self.feed.usage,
        }

    @property
    def presence(self) -> Presence:
        """What tells others that this process is there."""
        return Presence(self.db, self.kind, self.runner.usage.of, self.alarms)

    async def gauges(self) -> list[GaugeMetricFamily]:
        """Read the gauges from the database and the disks."""
        queues = [*self.runner.queues, *self.remote_queues.queues, *self.deliverer.queues]
        return await gauges.read(self.db, queues, adapters.folders(self.settings))

    async def status(self) -> ServiceStatus:
        """Read the state of the service. Raises DatabaseUnavailable."""
        await asyncio.to_thread(self.reserve.look)
        disks = await asyncio.to_thread(status.disks, adapters.folders(self.settings), self.reserve)
        read = partial(status.read, every=self.upkeep.shared, disks=disks, alarms=raised(self.alarms))
        return await self.db.read(read)

    async def open(self, *, dispatching: bool = True, claiming: bool = True) -> None:
        """Connect to everything, in the running event loop, and migrate. A failure disconnects again.

        Without `dispatching`, wake-ups are neither sent nor received, and no inbox is watched. Without `claiming` the
        files for this database, none may be removed. Raises ConfigurationError, DatabaseUnavailable, StorageFull.
        """
        try:
            await self.storage.open()
            if dispatching:
                await self.dispatcher.open()
                await self.hints.open()
                if self.inbox:
                    await self.inbox.open()
            await asyncio.to_thread(self.db.migrate)
            if claiming:
                await self.begin()
        except BaseException:
            await self.close()
            raise

    async def begin(self) -> None:
        """Claim the files for this database, and record which settings this process begins with."""
        await self.claim.begin()
        started = SettingsStarted(version=VERSION, sha256=self.settings.fingerprint)
        with suppress(AppError), context.acting(context.worker()):
            await self.db.write(partial(events.append, event=started))

    async def run(self) -> None:
        """What goes on in the background, until cancelled."""
        context.actor.set(context.worker())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(LoopWatch(self.runner.describe).run())
            tasks.create_task(gauges.sample(self.usages, self.alarms))
            tasks.create_task(self.runner.run())
            tasks.create_task(self.deliverer.run())
            tasks.create_task(self.rescuer.run())
            tasks.create_task(self.upkeep.run())
            tasks.create_task(self.watch.run())
            tasks.create_task(self.feed.run())
            tasks.create_task(self.dispatcher.run())
            tasks.create_task(self.hints.run())
            tasks.create_task(self.reserve.run())
            tasks.create_task(self.presence.run())

    async def drain(self, seconds: float, delay: float = 0) -> None:
        """First thing on SIGTERM: claim no more, let jobs end within `seconds` or give them back.

        Takes `delay` seconds at least, and answers requests that wait for a job, and ends streams, only then.
        """
        self.dispatcher.stop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.runner.drain(seconds))
            tasks.create_task(self.deliverer.drain(seconds))
            await asyncio.sleep(delay)
            self.watch.close()
            self.remote_queues.close()
            self.feed.close()

    async def close(self) -> None:
        """Close all connections. Call it last, after `run` was cancelled."""
        await self.drain(0)
        await self.dispatcher.close()
        await self.hints.close()
        await self.outbound.close()
        if self.inbox:
            await self.inbox.close()
        await self.claim.end()
        self.hasher.close()
        self.receiver.close()
        await self.keys.uses.close()
        await self.storage.close()
        await self.db.close()


def build(settings: Settings, *, worker: bool = False) -> Services:
    """Connect the parts that the settings ask for, in a server process or in a worker."""
    prepare_process(settings)
    db = adapters.database(settings)
    storage = adapters.storage(settings)
    processors = adapters.offered(settings)
    pipelines = adapters.pipelines(settings, processors)
    reserve = adapters.reserve(settings)
    receiver = Receiver(storage, reserve, settings)
    downloads = Downloads(settings.download_slots)
    stored = StoredFiles(db, storage)
    claim = Claim(db, storage)
    removal = Removal(storage, claim)
    orphans = Orphans(db, storage, claim, settings.orphan_grace_seconds)
    keys = ApiKeys(db, reserve, settings)
    secrets = settings.jwt_secrets or [development_secret(settings.data_dir)]
    hasher = PasswordHasher()
    watch = JobWatch(db)
    quotas = Quotas(partial(jobs.live_count, beside=QUEUE), reserve, settings)
    tokens = AccessTokens(
        secrets, issuer=settings.jwt_issuer, audience=settings.jwt_audience, ttl=settings.access_token_ttl
    )
    auth = AuthService(db, hasher, tokens, Attempts(secrets[0]), quotas=quotas, settings=settings)
    lease = settings.lease_seconds
    turns = Turns()

    elsewhere = remote_queues(processors, turns)
    hints = Hints(db, elsewhere, adapters.hint_dispatchers(settings, processors))
    events.subscribe(db, hints.accepted, to=[JobQueued])

    async def wake(job_id: UUID) -> None:  # the runner, which runs the kind that accepts what follows from a job
        await dispatcher.send(job_id)

    acceptance = Acceptance(processors, pipelines, wake, quotas, turns, settings)
    deletion = Deletion(db, removal, more_files, settings)
    process, making = process_kind(
        db,
        storage,
        receiver,
        acceptance,
        processors=processors,
        pipelines=pipelines,
        removal=removal,
        deletion=deletion,
        quotas=quotas,
        settings=settings,
    )
    outbound, secrets_kept = Outbound(settings), encryption(settings)
    telling = webhooks(db, outbound, secrets_kept, watch, reserve, settings)
    kinds: dict[str, Kind] = {kind.name: kind for kind in (process, telling.kind)}
    capacity = settings.job_concurrency if worker or settings.broker_url is None else 0
    runner = Runner(db, [process], watch, turns, capacity=capacity, lease=lease)
    dispatcher = adapters.dispatcher(settings, runner)

    def made(conn: Connection, _: Record) -> None:  # of which each may be accepted for processing
        after_commit(conn, runner.wake)

    events.subscribe(db, made, to=[DocumentChildrenPublished])
    intake = Intake(db, removal, grace=settings.orphan_grace_seconds)
    documents = DocumentService(
        db,
        stored,
        receiver,
        intake,
        downloads,
        quotas=quotas,
        settings=settings,
        job_for=acceptance.job_for,
    )
    replacement = Replacement(previous, settings.file_versions_max)
    file_versions = FileVersions(db, removal, replacement, reserve, settings)
    inbox = watcher(db, documents, acceptance, settings)
    scrubber = Scrubber(db, storage, claim, settings.scrub_bytes_per_second)
    regular = chores(
        db, storage, claim, orphans, deletion, file_versions, uses=keys.uses, inbox=inbox, settings=settings
    )
    upkeep = Upkeep(db, [*regular, *scrubbing(scrubber, settings), *hinting(hints, settings)])
    processing = ProcessingService(db, kinds, acceptance, watch, pauses=runner.pauses, quotas=quotas, settings=settings)
    return Services(
        settings=settings,
        db=db,
        storage=storage,
        encryption=secrets_kept,
        hasher=hasher,
        receiver=receiver,
        downloads=downloads,
        auth=auth,
        keys=keys,
        accounts=Accounts(db, auth, kinds, Erasure(db, orphans, settings.events_ttl), quotas),
        audit=AuditTrail(db, downloads),
        documents=documents,
        pictures=Pictures(documents, stored),
        deletion=deletion,
        replace=ReplaceService(db, stored, receiver, intake, replacement, quotas=quotas, settings=settings),
        file_versions=file_versions,
        uploads=UploadService(db, storage, receiver, OwnUrls(secrets), quotas, settings),
        processing=processing,
        batches=Batches(db, acceptance, quotas, settings),
        bulk=BulkJobs(db, kinds, acceptance, watch, quotas),
        answers=Answers(stored, downloads),
        rates=adapters.rates(settings),
        dispatcher=dispatcher,
        kinds=kinds,
        runner=runner,
        remote_queues=elsewhere,
        remote=remote_jobs(
            db,
            process,
            elsewhere,
            making,
            stored=stored,
            receiver=receiver,
            downloads=downloads,
            removal=removal,
            watch=watch,
            secrets=secrets,
            settings=settings,
        ),
        hints=hints,
        outbound=outbound,
        deliverer=telling.runner,
        webhooks=telling.service,
        rescuer=Rescuer(db, [runner, elsewhere, telling.runner], kinds, watch, lease=lease),
        claim=claim,
        orphans=orphans,
        inbox=inbox,
        scrubber=scrubber,
        upkeep=upkeep,
        watch=watch,
        reserve=reserve,
        feed=Feed(db, settings.event_streams),
        operators=operators(db, documents, processing, settings),
        kind="worker" if worker else "server",
    )


async def preflight(settings: Settings) -> None:
    """Migrate, and find out before there are server processes what each of them would fail on.

    Raises ConfigurationError, DatabaseUnavailable, StorageFull.
    """
    services = build(settings)
    await services.open(claiming=False)
    try:
        with suppress(StorageUnavailable):
            await services.claim.check()
    finally:
        await services.close()
