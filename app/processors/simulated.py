"""A stand-in for real work: takes time, fails on request, and returns facts about the file that it has read."""

import asyncio
import hashlib
from typing import Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from app.processors.base import Params, Permanent, Report, Source, Transient

_STEP = 0.25  # seconds between progress reports


SimulatedFailure = TypeAliasType("SimulatedFailure", Literal["permanent", "transient"])


class SimulatedParams(Params):
    """How long the simulated work takes, and whether it fails."""

    seconds: float = Field(1, ge=0, le=60, description="How long the work takes.")
    fail: SimulatedFailure | None = Field(None, description="Fail at the end: for good, or every time.")
    flaky: int = Field(0, ge=0, le=10, description="Fail transiently this many times, then succeed.")


class SimulatedResult(BaseModel):
    """Facts about the file."""

    simulated: Literal[True]
    size: int = Field(description="In bytes.")
    sha256: str = Field(description="In hex.")
    content_type: str


class SimulatedProcessor:
    """Data: a SimulatedResult.

    Raises Permanent `simulated-permanent` or Transient `simulated-transient`, as its params ask.
    """

    name = "simulated"
    version = "1"
    description = "Takes time and fails on request, in the place of real work."
    at_once = None
    params = SimulatedParams
    result = SimulatedResult

    async def run(self, source: Source, params: SimulatedParams, report: Report) -> dict[str, Any]:
        worked = 0.0
        while worked < params.seconds:
            step = min(_STEP, params.seconds - worked)
            await asyncio.sleep(step)
            worked += step
            report(worked / params.seconds)
        if params.fail == "permanent":
            raise Permanent("simulated-permanent", "The simulated work was told to fail for good.")
        if params.fail == "transient" or source.attempt <= params.flaky:
            raise Transient("simulated-transient", "The simulated work was told to fail this time.")
        size, sha256 = await asyncio.to_thread(_observe, source)
        return {"simulated": True, "size": size, "sha256": sha256, "content_type": source.content_type}


def _observe(source: Source) -> tuple[int, str]:
    with source.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256
