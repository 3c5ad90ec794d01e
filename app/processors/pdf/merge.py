"""Merges PDFs."""

from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.processors.base import CombiningParams, MadeDocument, Outputs, Permanent, Report, Source
from app.processors.pdf.documents import (
    AT_ONCE,
    CONTENT_TYPES,
    MAX_FILENAME,
    Count,
    NamePart,
    Told,
    confined,
    joined,
)
from app.processors.sandbox.output import MAX_LINE
from app.processors.text.processor import FAILURES

MAX_DOCUMENTS = 100


class MergeParams(CombiningParams):
    """Which documents follow the one that is processed, and what the whole is called."""

    others: tuple[UUID, ...] = Field(
        (),
        alias="with",
        max_length=MAX_DOCUMENTS - 1,
        description="The ids of the documents whose pages follow, in this order. One may be there more than once.",
    )
    filename: NamePart | None = Field(
        None, min_length=1, max_length=MAX_FILENAME, description="Left out: `{name}_merged.pdf`."
    )


class MergeResult(BaseModel):
    """The document that was made."""

    children: list[MadeDocument] = Field(description="One.")
    page_count: int = Field(description="Pages that it has.")
    documents: int = Field(description="Documents that it was made of.")
    signature_dropped: bool = Field(
        description="One of them was signed: signatures are of a whole document, and what was made has none."
    )


class Refusal(BaseModel, extra="forbid", strict=True):
    """Which document cannot be read, counted from 1, and why."""

    document: Count
    code: Literal["password-protected", "unsupported-encryption", "malformed-document"]


class Merged(BaseModel, extra="forbid", strict=True):
    """What the child has done, or not, because a document was `refused`."""

    page_count: Count
    signature_dropped: bool
    refused: Refusal | None


class MergeProcessor:
    """Data: a MergeResult.

    Raises what a `ConfinedChild` of this name raises, Permanent with a code of FAILURES, and what Outputs raise.
    """

    name = "merge"
    version = "1"
    description = "Makes one document of the pages of several PDFs, this one first."
    content_types = CONTENT_TYPES
    at_once = AT_ONCE
    params = MergeParams
    result = MergeResult

    def __init__(self, *, memory: int = 512 * 1024**2) -> None:
        self._child = confined(self.name, Merged, memory)

    async def run(self, source: Source, params: MergeParams, report: Report, outputs: Outputs) -> dict[str, Any]:
        children: list[dict[str, Any]] = []

        async def on_file(told: dict[str, Any], chunks: AsyncIterator[bytes]) -> None:
            Told.model_validate(told)
            name = params.filename or joined(PurePosixPath(source.filename).stem, after="merged")
            children.append(MadeDocument.of(await outputs.add_document(name, chunks)))

        task = {"work": "merge", "arguments": [[str(path) for path in source.others]]}
        merged = await self._child.run(
            source.path, task, report, max_line=MAX_LINE, on_file=on_file, others=source.others
        )
        documents = 1 + len(source.others)
        if merged.refused:
            code = merged.refused.code
            raise Permanent(code, f"Document {merged.refused.document} of {documents}: {FAILURES[code]}")
        return {
            "children": children,
            "page_count": merged.page_count,
            "documents": documents,
            "signature_dropped": merged.signature_dropped,
        }
