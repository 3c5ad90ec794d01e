"""What a pipeline publishes: the result of each stage under the stage's own name, and its own, all or none."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from app.errors import NotFound
from app.jobs.models import Job
from app.processing.input import Inputs
from app.processing.output import INLINE, Answer, ResultWriter
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processing.stages.kept import Kept
from app.processing.stages.pipeline import Pipeline
from app.processing.stages.schemas import StageReceipt

_PIECE = 64 * 1024  # bytes
_SOONER = timedelta(milliseconds=1)


class Gone(Exception):
    """What a stage made is missing in the storage, or was made anew meanwhile."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(kept.key)
        self.kept = kept


class StageResults:
    """Results on their way to being published: `made`, the pipeline's own last."""

    def __init__(
        self,
        job: Job,
        pipeline: Pipeline,
        receipts: Sequence[StageReceipt],
        stages: Mapping[str, Kept | None],
    ) -> None:
        self.made: list[Made] = []
        self._job = job
        self._pipeline = pipeline
        self._receipts = receipts
        self._stages = {name: each for name, each in stages.items() if each}

    async def prepare(self, inputs: Inputs, writer: ResultWriter) -> None:
        """Store what is large as the answers that clients get. Raises AppError, and Gone."""
        moment = await writer.moment()
        for receipt in self._receipts:
            if each := self._stages.get(receipt.name):
                # The pipeline's own result is the latest, of which `GET …/result` tells.
                await self._add(inputs, writer, self._provenance(receipt), each, moment - _SOONER)
        ran = Provenance.of(self._job).model_copy(update={"processor_version": self._pipeline.version})
        own = self._own()
        output = own if len(own.encode()) <= INLINE else await writer.answer(ran, iter([own.encode()]), moment)
        self.made.append(Made(ran, output, moment))

    async def discard(self, writer: ResultWriter) -> None:
        """Remove what is not going to be published."""
        for each in self.made:
            await writer.discard(each.output)

    async def _add(
        self, inputs: Inputs, writer: ResultWriter, provenance: Provenance, each: Kept, created_at: datetime
    ) -> None:
        output: str | Answer = each.data or "{}"
        if each.file:
            try:
                async with inputs.copy(each.file) as path:
                    output = await writer.answer(provenance, _decompressed(path), created_at)
            except NotFound:
                raise Gone(each) from None
        self.made.append(Made(provenance, output, created_at))

    def _provenance(self, receipt: StageReceipt) -> Provenance:
        """What the result of a stage was made by, and of."""
        by = {"processor": receipt.name, "processor_version": receipt.version, "params": receipt.params}
        return Provenance.of(self._job).model_copy(update=by)

    def _own(self) -> str:
        """The JSON of a PipelineResult. What the stages made is in it as it is."""
        receipts = ",".join(each.model_dump_json() for each in self._receipts)
        small = {name: each.data if each.length <= INLINE else None for name, each in self._stages.items()}
        data = ",".join(f"{json.dumps(name)}:{each or 'null'}" for name, each in small.items())
        return f'{{"stages":[{receipts}],"results":{{{data}}}}}'


def _decompressed(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            yield piece
