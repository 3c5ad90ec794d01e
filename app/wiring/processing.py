"""The kind of job that processes documents, built of what runs processors and pipelines."""

from collections.abc import Mapping
from typing import Any

from app.database import Database
from app.files.removal import Removal
from app.processing.input import Inputs
from app.processing.kind import ProcessKind
from app.processing.output import Limits, Outputs
from app.processing.stages.pipeline import AD_HOC, Pipeline, least_at_once
from app.processing.stages.run import PipelineRunner
from app.processors.base import Processor
from app.settings import Settings
from app.storage.base import Storage


def process_kind(
    db: Database,
    storage: Storage,
    removal: Removal,
    processors: Mapping[str, Processor[Any]],
    pipelines: Mapping[str, Pipeline],
    settings: Settings,
) -> ProcessKind:
    inputs, outputs = Inputs(db, storage), Outputs(db, storage, removal)
    queues = {AD_HOC: least_at_once(processors.values())}
    queues |= {name: pipeline.at_once for name, pipeline in pipelines.items()}
    limits = Limits(settings.max_result_bytes, settings.orphan_grace_seconds)
    runner = PipelineRunner(db, storage, processors, inputs, outputs, limits, queues=queues)
    return ProcessKind(storage, processors, runner, inputs, outputs, limits, timeout=settings.job_timeout)
