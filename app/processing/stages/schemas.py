"""What clients see of pipelines."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from app.jobs.schemas import JobParams

StageOutput = TypeAliasType("StageOutput", dict[str, Any])


class StageReceipt(BaseModel):
    """What a pipeline did in one of its stages."""

    name: str = Field(examples=["text"])
    version: str = Field(description="The version of its processor.", examples=["3"])
    params: JobParams
    key: str | None = Field(
        description="SHA-256, in hex, of what its result depends on: equal keys, equal work. `null`: it was skipped."
    )
    cached: bool = Field(description="Its result was there: by an earlier attempt, or for the same bytes.")
    skipped: bool = Field(description="It is conditional (`?`), and this document does not need it.")
    seconds: float = Field(description="That it took in the attempt that succeeded.")
    size: int | None = Field(description="Bytes of the JSON of its data.")


class PipelineResult(BaseModel):
    """What a pipeline made of a document. The result of each stage is at `GET …/results/{stage}`, too."""

    stages: list[StageReceipt]
    results: dict[str, StageOutput | None] = Field(
        description="The data of each stage that was not skipped, by its name, the last stage's last. `null` if its "
        "JSON is larger than 64 KiB: fetch it from `results/{stage}`."
    )


class PipelineParams(BaseModel):
    """The params of each stage by its name; a stage that is left out takes its defaults."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, dict[str, Any]]
