"""A processor in a package of its own: finds the most common bytes of a file. A real one would run a model."""

from collections import Counter
from typing import Any, BinaryIO

from pydantic import BaseModel, Field

from app.processors.base import Params, Report, Source
from app.processors.child import call


class BytesParams(Params):
    """What clients may ask for."""

    most: int = Field(3, ge=1, le=256, description="How many byte values to name.")


class BytesResult(BaseModel):
    """What they get."""

    size: int
    most_common: list[int]
    filename: str


class BytesProcessor:
    name = "bytes"
    version = "1"  # raise it when the output changes: documents can then be processed again
    description = "Names the most common bytes of a PDF."
    at_once = 2  # in one process
    content_types = ("application/pdf",)
    params = BytesParams
    result = BytesResult

    async def run(self, source: Source, params: BytesParams, report: Report) -> dict[str, Any]:
        found: dict[str, Any] = await call("byte_counter:count", source.path, {"most": params.most}, seconds=30)
        report(1.0)
        return found | {"filename": source.filename}


def count(document: BinaryIO, most: int) -> dict[str, Any]:
    """Runs in the confined child process: it can compute, and neither block nor harm the service."""
    counted = Counter(document.read())
    return {"size": counted.total(), "most_common": [byte for byte, _ in counted.most_common(most)]}
