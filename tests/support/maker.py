"""A processor that makes documents and files."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.processors.base import MakingParams, Outputs, Permanent, Report, Source

NAMED = "tests.support.maker:Maker"

Fault = Literal["permanent", "no-document", "name", "twice", "media-type", "metadata", "crash"]


class MakerParams(MakingParams):
    documents: int = 0
    files: int = 0
    size: int = 0
    """Bytes that each is longer than the document."""
    seconds: float = 0
    """That it takes after all is made."""
    metadata: dict[str, Any] = Field({})
    fault: Fault | None = None


class MakerResult(BaseModel):
    documents: list[str]
    files: list[str]
    attempt: int


class Maker:
    """Its documents are like the one it reads, but for a comment. Faults come after all is made."""

    name = "maker"
    version = "1"
    description = "For tests."
    at_once = None
    params = MakerParams
    result = MakerResult

    async def run(self, source: Source, params: MakerParams, report: Report, outputs: Outputs) -> dict[str, Any]:
        content = source.path.read_bytes()

        async def like_it(number: int) -> AsyncIterator[bytes]:
            yield content
            yield f"\n% {number}".encode() + b" " * params.size + b"\n%%EOF\n"

        documents = []
        for number in range(params.documents):
            made = await outputs.add_document(f"part {number}.pdf", like_it(number), params.metadata)
            documents.append(str(made.id))
            report(number / params.documents)
        files = [
            (await outputs.add(f"{number}.bin", "image/png", like_it(number))).name for number in range(params.files)
        ]
        await asyncio.sleep(params.seconds)
        match params.fault:
            case "permanent":
                raise Permanent("maker-fault", "It was told to fail.")
            case "crash":
                raise RuntimeError
            case "no-document":
                await outputs.add_document("no.pdf", _of(b"nothing that could be uploaded"))
            case "name":
                await outputs.add("../name", "image/png", _of(b""))
            case "twice":  # at the same time
                await asyncio.gather(*(outputs.add("same.bin", "image/png", like_it(0)) for _ in range(2)))
            case "media-type":
                await outputs.add("a", "image", _of(b""))
            case "metadata":
                await outputs.add_document("no.pdf", like_it(0), {"folder": "x" * 256})
        return {"documents": documents, "files": files, "attempt": source.attempt}


async def _of(content: bytes) -> AsyncIterator[bytes]:
    yield content
