"""One attempt at a processor: over a local copy of the file, and what it made stored before it is published."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from app.jobs.kinds import Failed, Outcome, Report, Retryable, Succeeded
from app.jobs.models import Job
from app.processing.contract import makes_files
from app.processing.failures import FAILURES, INVALID_PARAMS, outcome_of
from app.processing.input import InputDocument, InputFile, Inputs
from app.processing.output import Answer, Limits, ResultWriter
from app.processing.publication import Product
from app.processing.queues import queue_of
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processing.sink import OutputFile, Sink, Sinks
from app.processing.work import Work
from app.processors.base import Outputs, Processor, Source

S_co = TypeVar("S_co", bound="MadeFiles", covariant=True)


class Reading(Protocol):
    """Finds what an attempt reads."""

    def copy(self, file: InputFile) -> AbstractAsyncContextManager[Path]: ...

    def source(self, job: Job, document: InputDocument, path: Path, *others: Path) -> Source: ...


class Writing(Protocol):
    """Turns what a processor returns into what can be published."""

    async def prepare(self, job: Job, data: object, model: type[BaseModel], max_bytes: int) -> str | Answer: ...


class MadeFiles(Outputs, Protocol):
    """The files that an attempt has made, before they are published."""

    made: list[OutputFile]


class Sinking(Protocol[S_co]):
    """Keeps the files that an attempt makes. If the block fails, none of them is left."""

    def sink(self, job: Job, document: InputDocument) -> AbstractAsyncContextManager[S_co]: ...


class Tools(NamedTuple, Generic[S_co]):
    """What an attempt needs, wherever it is made."""

    inputs: Reading
    writer: Writing
    sinks: Sinking[S_co]
    limits: Limits


class Attempted(NamedTuple, Generic[S_co]):
    """What an attempt has made."""

    product: Product
    sink: S_co


async def attempt(
    processor: Processor, job: Job, work: Work, report: Report, tools: Tools[S_co]
) -> Attempted[S_co] | Failed | Retryable:
    """Run a processor once, over local copies of what the job reads."""
    try:
        params = processor.params.model_validate(work.params)
    except ValidationError:  # accepted under other settings
        return outcome_of(INVALID_PARAMS)
    try:
        async with tools.sinks.sink(job, work) as sink, AsyncExitStack() as copies:
            paths = [await copies.enter_async_context(tools.inputs.copy(each)) for each in work.files]
            taken = (tools.inputs.source(job, work, *paths), params, report)
            data = await processor.run(*taken, *([sink] if makes_files(processor) else []))
            output = await tools.writer.prepare(job, data, processor.result, tools.limits.bytes_of(processor))
    except FAILURES as error:
        return outcome_of(error)
    return Attempted(Product.of([Made(Provenance.of(job), output)], sink.made, params), sink)


class ProcessorRunner:
    """Runs processors. `queues` are those of their jobs, as a `Kind` has them."""

    def __init__(
        self,
        processors: Mapping[str, Processor],
        inputs: Inputs,
        writer: ResultWriter,
        sinks: Sinks,
        limits: Limits,
    ) -> None:
        self.queues = {queue_of(each.name, each.version): each.at_once for each in processors.values()}
        self._processors = processors
        self._inputs = inputs
        self._writer = writer
        self._sinks = sinks
        self._limits = limits

    async def run(self, job: Job, work: Work, report: Report) -> Outcome:
        """Make one attempt."""
        processor = self._processors[work.processor]
        tools = Tools(self._inputs, self._writer, self._sinks, self._limits)
        made = await attempt(processor, job, work, report, tools)
        if not isinstance(made, Attempted):
            return made
        return Succeeded(made.product, partial(self._settled, *made), alone=bool(made.sink.made))

    async def _settled(self, product: Product, sink: Sink, published: bool) -> None:  # noqa: FBT001 - of a callback
        if product.deleted and published:
            await self._sinks.removal.discarded(product.deleted)
        elif not published:
            await self._writer.discard(*(each.output for each in product.results))
            await sink.discard()
