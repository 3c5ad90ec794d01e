"""The kind of job that processes documents, built of what runs processors and pipelines."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from app.database import Database
from app.documents.deletion import Deletion
from app.files.receive import Receiver
from app.files.removal import Removal
from app.processing import previous, results
from app.processing.acceptance import Acceptance
from app.processing.contract import runs_elsewhere
from app.processing.input import Inputs
from app.processing.kind import ProcessKind
from app.processing.output import Limits, ResultWriter
from app.processing.publication import Publication
from app.processing.run import ProcessorRunner
from app.processing.sink import Sinks
from app.processing.stages import kept
from app.processing.stages.pipeline import AD_HOC, Pipeline, least_at_once
from app.processing.stages.run import PipelineRunner
from app.processors.base import Processor
from app.quotas import Quotas
from app.remote.processors import LONGEST_LEASE
from app.settings import Settings
from app.storage.base import Storage


class Making(NamedTuple):
    """What an attempt needs to read and to make something, wherever it is made."""

    inputs: Inputs
    writer: ResultWriter
    sinks: Sinks
    limits: Limits


def process_kind(
    db: Database,
    storage: Storage,
    receiver: Receiver,
    acceptance: Acceptance,
    *,
    processors: Mapping[str, Processor],
    pipelines: Mapping[str, Pipeline],
    removal: Removal,
    deletion: Deletion,
    quotas: Quotas,
    settings: Settings,
) -> tuple[ProcessKind, Making]:
    here = {name: each for name, each in processors.items() if not runs_elsewhere(each)}
    inputs, writer = Inputs(db, storage), ResultWriter(db, storage, removal)
    limits = Limits(settings.max_result_bytes, settings.orphan_grace_seconds)
    longest = settings.job_timeout + settings.lease_seconds
    sinks = Sinks(db, storage, receiver, removal, quotas, max_bytes=settings.max_upload_bytes, longest=longest)
    queues = {AD_HOC: least_at_once(here.values())}
    queues |= {name: pipeline.at_once for name, pipeline in pipelines.items()}
    kind = ProcessKind(
        db,
        ProcessorRunner(here, inputs, writer, sinks, limits),
        PipelineRunner(db, here, inputs, writer, limits, queues=queues),
        Publication(acceptance, quotas, deletion.delete_within, grace=limits.orphan_grace),
        timeout=settings.job_timeout,
    )
    # Elsewhere, each processor has a lease of its own.
    return kind, Making(inputs, writer, replace(sinks, longest=settings.job_timeout + LONGEST_LEASE), limits)


def more_files(conn: Connection, document_id: UUID) -> list[str]:
    """The keys of what is stored besides a document's file, and goes with it."""
    return [*results.keys(conn, document_id), *previous.keys(conn, document_id), *kept.keys(conn, document_id)]
