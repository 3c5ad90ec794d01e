"""What a pipeline is: an ordered choice of processors, which behaves as one more processor."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import Field, create_model

from app.files.models import ContentType
from app.processing.contract import content_types, makes_files, runs_elsewhere
from app.processing.stages.schemas import PipelineResult
from app.processors.base import Params, Processor, Report, Source

AD_HOC = "pipeline"
"""The name of a pipeline that a request spells out."""

VERSION = "1"
"""Of how pipelines are run, in the names of their queues: those of the stages come and go without them."""

MAX_STAGES = 10


class UnusableStage(Exception):
    """A stage that cannot be in a pipeline: `number` counts from 0, `unknown`: no processor has its name."""

    def __init__(self, number: int, reason: str, *, unknown: bool = False) -> None:
        super().__init__(reason)
        self.number = number
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Stage:
    """A processor in a pipeline. A `conditional` one, spelled with a `?`, runs only on documents that need it."""

    processor: Processor
    conditional: bool

    @property
    def name(self) -> str:
        """That of its processor."""
        return self.processor.name

    @property
    def spelled(self) -> str:
        """As requests and settings spell it."""
        return f"{self.name}?" if self.conditional else self.name

    @property
    def weight(self) -> float:
        """Its part of the work, for the progress."""
        return float(getattr(self.processor, "weight", 1))

    def reads(self, content_type: str) -> bool:
        """Whether its processor reads documents of this type."""
        return content_type in content_types(self.processor)


class Pipeline:
    """Stages in their order. To whoever offers and describes processors, it is one."""

    result = PipelineResult

    def __init__(self, name: str, stages: Sequence[Stage]) -> None:
        self.name = name
        self.stages = stages
        self.spelled = [stage.spelled for stage in stages]
        self.description = f"Runs {', '.join(self.spelled)}, each with the results of those before it."
        # A digest of the stages and their versions: what it makes is made anew once one of them has changed.
        told = ",".join(f"{stage.spelled}@{stage.processor.version}" for stage in stages)
        self.version = hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def at_once(self) -> int | None:
        """That of the stage that allows least."""
        return least_at_once(stage.processor for stage in self.stages)

    @property
    def content_types(self) -> list[ContentType]:
        """What all stages read; one that is conditional is left out where it does not."""
        needed = [stage for stage in self.stages if not stage.conditional]
        return [each for each in ContentType if all(stage.reads(each) for stage in needed)]

    @property
    def params(self) -> type[Params]:
        """The params of each stage, by its name."""
        models = tuple((stage.name, stage.processor.params) for stage in self.stages)
        return _params(f"{self.name.title().replace('-', '')}Params", models)

    async def run(self, source: Source, params: Any, report: Report) -> dict[str, Any]:
        """It is no processor in this: `PipelineRunner` runs its stages."""
        raise NotImplementedError


@lru_cache(256)
def _params(name: str, models: tuple[tuple[str, type[Params]], ...]) -> type[Params]:
    fields: dict[str, Any] = {stage: (model, Field(default_factory=model)) for stage, model in models}
    return create_model(name, __base__=Params, __doc__="The params of each stage.", **fields)


def least_at_once(processors: Iterable[Processor]) -> int | None:
    """The smallest `at_once` that one of the processors states; None: none does."""
    return min((each.at_once for each in processors if each.at_once is not None), default=None)


def pipeline_of(name: str, spelled: Iterable[str], processors: Mapping[str, Processor]) -> Pipeline:
    """Return the pipeline of stages that are spelled so. Raises UnusableStage."""
    stages: list[Stage] = []
    for number, each in enumerate(spelled):
        wanted = each.removesuffix("?")
        processor = processors.get(wanted)
        if processor is None:
            known = ", ".join(sorted(processors))
            raise UnusableStage(number, f"there is no processor {wanted}; there are {known}", unknown=True)
        if wanted in [stage.name for stage in stages]:
            raise UnusableStage(number, f"{wanted} is in it twice")
        if runs_elsewhere(processor):
            raise UnusableStage(number, f"{wanted} runs elsewhere, which no stage can")
        if makes_files(processor):
            raise UnusableStage(number, f"{wanted} makes files, which no stage can")
        conditional = each != wanted
        if conditional and not hasattr(processor, "needed"):
            raise UnusableStage(number, f"{wanted} does not tell where it is needed: it cannot have a ?")
        stages.append(Stage(processor, conditional))
    return Pipeline(name, stages)


def named_pipelines(setting: str, processors: Mapping[str, Processor]) -> dict[str, Pipeline]:
    """The pipelines of the setting PIPELINES, such as `scan=ocr?,text,keywords;quick=text`, by name.

    Raises ValueError, in one line.
    """
    named: dict[str, Pipeline] = {}
    for each in filter(None, (part.strip() for part in setting.split(";"))):
        name, _, spelled = (part.strip() for part in each.partition("="))
        if name in processors or name in named or name == AD_HOC:
            raise ValueError(f"{name}: the name is taken")
        stages = [stage.strip() for stage in spelled.split(",")]
        if len(stages) > MAX_STAGES:
            raise ValueError(f"{name}: it has more than {MAX_STAGES} stages")
        try:
            named[name] = pipeline_of(name, stages, processors)
        except UnusableStage as error:
            raise ValueError(f"{name}: {error}") from None
    return named
