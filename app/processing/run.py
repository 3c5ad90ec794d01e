"""One attempt at a processor: over a local copy of the file, and what it made stored before it is published."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from pydantic import ValidationError

from app.jobs.kinds import Outcome, Report, Succeeded
from app.jobs.models import Job
from app.processing.contract import makes_files
from app.processing.failures import FAILURES, INVALID_PARAMS, outcome_of
from app.processing.input import Inputs
from app.processing.output import Limits, ResultWriter
from app.processing.publication import Product
from app.processing.queues import queue_of
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processing.sink import Sink, Sinks
from app.processing.work import Work
from app.processors.base import Processor


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
        self._making = {name for name, each in processors.items() if makes_files(each)}
        self._inputs = inputs
        self._writer = writer
        self._sinks = sinks
        self._limits = limits

    async def run(self, job: Job, work: Work, report: Report) -> Outcome:
        """Make one attempt."""
        processor = self._processors[work.processor]
        try:
            params = processor.params.model_validate(work.params)
        except ValidationError:  # accepted under other settings
            return outcome_of(INVALID_PARAMS)
        try:
            async with self._sinks.sink(job, work) as sink, AsyncExitStack() as copies:
                paths = [await copies.enter_async_context(self._inputs.copy(each)) for each in work.files]
                taken = (self._inputs.source(job, work, *paths), params, report)
                data = await processor.run(*taken, *([sink] if processor.name in self._making else []))
                bound = self._limits.bytes_of(processor)
                output = await self._writer.prepare(job, data, processor.result, bound)
        except FAILURES as error:
            return outcome_of(error)
        product = Product.of([Made(Provenance.of(job), output)], sink.made, params)
        return Succeeded(product, partial(self._settled, product, sink), alone=bool(sink.made))

    async def _settled(self, product: Product, sink: Sink, published: bool) -> None:  # noqa: FBT001 - of a callback
        if product.deleted and published:
            await self._sinks.removal.discarded(product.deleted)
        elif not published:
            await self._writer.discard(*(each.output for each in product.results))
            await sink.discard()
