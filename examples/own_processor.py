"""A processor of your own, beside those of the service.

In a checkout of the service, after `make install`: `PYTHONPATH=. .venv/bin/python examples/own_processor.py serve`. It
takes the place of `python -m app`, and your code stays outside of the service's.
"""

import asyncio
from collections import Counter
from typing import Any

from pydantic import BaseModel, Field

from app import cli
from app.processors.base import Params, Report, Source
from app.wiring import adapters


class BytesParams(Params):
    """What clients may ask for."""

    most: int = Field(3, ge=1, le=256, description="How many byte values to name.")


class BytesResult(BaseModel):
    """What they get."""

    size: int
    most_common: list[int]


class BytesProcessor:
    """Finds the most common bytes of a file. A real one would run a model, or call a service."""

    name = "bytes"
    description = "Names the most common bytes."
    version = "1"  # raise it when the output changes: documents can then be processed again
    at_once = 2  # in one process
    params = BytesParams
    result = BytesResult

    async def run(self, source: Source, params: BytesParams, report: Report) -> dict[str, Any]:
        counted = await asyncio.to_thread(self._count, source)  # nothing may block the event loop
        report(1.0)
        return {"size": counted.total(), "most_common": [byte for byte, _ in counted.most_common(params.most)]}

    def _count(self, source: Source) -> Counter[int]:
        return Counter(source.path.read_bytes())


built_in = adapters.available
adapters.available = lambda settings: (*built_in(settings), BytesProcessor())

if __name__ == "__main__":
    cli.main()
