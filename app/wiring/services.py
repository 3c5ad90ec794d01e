"""Everything one process runs: how it begins, what goes on in it, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prometheus_client.core import GaugeMetricFamily

from app import VERSION, events
from app.accounts.service import Accounts
from app.audit.service import AuditTrail
from app.auth.keys.service import ApiKeys
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService
from app.check.scrubber import Scrubber
from app.database import Database
from app.documents.deletion import Deletion
from app.documents.feed import Feed
from app.documents.file_versions.replace import ReplaceService
from app.documents.file_versions.service import FileVersions
from app.documents.pictures import Pictures
from app.documents.service import DocumentService
from app.documents.uploads import UploadService
from app.encryption import Encryption
from app.errors import AppError
from app.events.catalogue.service import SettingsStarted
from app.files.claim import Claim
from app.files.downloads import Downloads
from app.files.orphans import Orphans
from app.files.receive import Receiver
from app.inbox.watcher import Watcher
from app.jobs.dispatch.base import Dispatcher
from app.jobs.kinds import Kind
from app.jobs.rescuer import Rescuer
from app.jobs.runner import Runner
from app.jobs.watch import JobWatch
from app.limiter import Usage
from app.operators import status
from app.operators.dependencies import Operators
from app.operators.processes import Presence, raised
from app.operators.status import ServiceStatus
from app.outbound import Outbound
from app.processing.answers import Answers
from app.processing.batch import Batches
from app.processing.bulk import BulkJobs
from app.processing.service import ProcessingService
from app.processors import sandbox
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
from app.webhooks.service import WebhookService
from app.wiring import adapters, gauges
from app.wiring.encryption import key_missing


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
