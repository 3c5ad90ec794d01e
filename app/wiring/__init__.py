"""From settings to running services."""

from contextlib import suppress
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from app import events
from app.accounts.erasure import Erasure
from app.accounts.service import Accounts
from app.audit.service import AuditTrail
from app.auth.attempts import Attempts
from app.auth.keys.service import ApiKeys
from app.auth.passwords import PasswordHasher
from app.auth.service import AuthService
from app.auth.tokens import AccessTokens, development_secret
from app.check.scrubber import Scrubber
from app.database import after_commit
from app.documents.deletion import Deletion
from app.documents.feed import Feed
from app.documents.file_versions.replace import ReplaceService
from app.documents.file_versions.replacement import Replacement
from app.documents.file_versions.service import FileVersions
from app.documents.intake import Intake
from app.documents.pictures import Pictures
from app.documents.service import DocumentService
from app.documents.uploads import UploadService
from app.errors import StorageUnavailable
from app.events import Record
from app.events.catalogue.documents import DocumentChildrenPublished
from app.events.catalogue.jobs import JobQueued
from app.files.claim import Claim
from app.files.downloads import Downloads
from app.files.orphans import Orphans
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.signed_urls import OwnUrls
from app.files.stored import StoredFiles
from app.jobs import repository as jobs
from app.jobs.rescuer import Rescuer
from app.jobs.runner import Runner
from app.jobs.turns import Turns
from app.jobs.watch import JobWatch
from app.outbound import Outbound
from app.processing import previous
from app.processing.acceptance import Acceptance
from app.processing.answers import Answers
from app.processing.batch import Batches
from app.processing.bulk import BulkJobs
from app.processing.service import ProcessingService
from app.quotas import Quotas
from app.remote.hints import Hints
from app.settings import Settings
from app.upkeep import Upkeep
from app.webhooks.deliveries import QUEUE
from app.wiring import adapters
from app.wiring.chores import chores, hinting, scrubbing
from app.wiring.encryption import encryption
from app.wiring.inbox import watcher
from app.wiring.operators import operators
from app.wiring.process import prepare_process
from app.wiring.processing import more_files, process_kind
from app.wiring.remote import remote_jobs, remote_queues
from app.wiring.services import Services
from app.wiring.webhooks import webhooks


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
    kinds = {kind.name: kind for kind in (process, telling.kind)}
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
