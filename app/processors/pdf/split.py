"""Splits a PDF by its pages."""

import re
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.processors.base import MadeDocument, MakingParams, Outputs, Permanent, Report, Source
from app.processors.child import MAX_FILES
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

MAX_PAGES = 10_000  # that a file map lists: it becomes an argument of the child's process
_NUMBER = "[1-9][0-9]{0,5}"
_RANGE = re.compile(f" *({_NUMBER}) *(?:(-) *({_NUMBER})? *)?")
_SOME_RANGE = f" *{_NUMBER} *(- *({_NUMBER} *)?)?"

Page = Annotated[int, Field(ge=0, lt=1_000_000, strict=True)]


class SplitMetadata(BaseModel):
    """What takes the place of the document's own metadata; what is left out, or null, is as the document has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = Field(None, max_length=2000)
    folder: str | None = Field(None, min_length=1, max_length=255)
    tags: list[str] | None = Field(None, max_length=50)


class SplitPart(BaseModel):
    """A document that is to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pages: list[Page] = Field(
        min_length=1,
        max_length=MAX_PAGES,
        description="Counted from 0, in any order; one may be there more than once.",
        examples=[[0, 1]],
    )
    name: NamePart | None = Field(None, min_length=1, max_length=MAX_FILENAME, description="Its filename.")
    metadata: SplitMetadata | None = None


FileMap = Annotated[
    list[SplitPart],
    Field(
        min_length=1,
        max_length=MAX_FILES,
        description=f"The documents to make, and the pages of each, counted from 0; at most {MAX_PAGES} pages in all.",
    ),
]


class NestedFileMap(BaseModel):
    """A file map, in an object of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_map: FileMap


class SplitParams(MakingParams):
    """Which pages become documents: by one of `file_map`, `every` and `ranges`, or else each page becomes one."""

    file_map: FileMap | None = None
    every: int | None = Field(None, ge=1, strict=True, description="So many pages each; the last may have fewer.")
    ranges: str | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        pattern=f"^{_SOME_RANGE}(,{_SOME_RANGE})*$",
        description="A document for each range, with commas between them. Pages are counted from 1, as people do; "
        "a range without an end goes up to the last page, and one like 3-1 goes backwards.",
        examples=["1-3,5-"],
    )
    prefix: NamePart = Field(
        "", max_length=50, description="What filenames begin with: `{prefix}_{name}_{number}_{suffix}.pdf`."
    )
    suffix: NamePart = Field("", max_length=50, description="What filenames end with.")
    split_params: NestedFileMap | None = Field(None, exclude=True, description="Another way to write `file_map`.")

    @model_validator(mode="before")
    @classmethod
    def _lift(cls, given: Any) -> Any:
        """Have equal work be equal params, however it was written."""
        if not isinstance(given, dict) or not isinstance(nested := given.get("split_params"), dict):
            return given
        if given.get("file_map") is not None:
            raise ValueError("file_map is there twice")
        return {name: value for name, value in given.items() if name != "split_params"} | nested

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        if sum(each is not None for each in (self.file_map, self.every, self.ranges)) > 1:
            raise ValueError("Only one of file_map, every and ranges can be given")
        if sum(len(part.pages) for part in self.file_map or ()) > MAX_PAGES:
            raise ValueError(f"file_map lists more than {MAX_PAGES} pages")
        return self

    def parsed_ranges(self) -> list[tuple[int, int | None]] | None:
        """Return the ranges by their first and last pages."""
        if self.ranges is None:
            return None
        found = [each for each in map(_RANGE.fullmatch, self.ranges.split(",")) if each]
        return [(int(each[1]), int(each[3] or 0) or (None if each[2] else int(each[1]))) for each in found]


class SplitDocument(MadeDocument):
    """A document that was made."""

    pages: list[int] = Field(description="Its pages in the document that was split, counted from 0.")


class SplitResult(BaseModel):
    """The documents that were made."""

    children: list[SplitDocument]
    page_count: int = Field(description="Pages of the document that was split.")
    signature_dropped: bool = Field(
        description="It was signed: signatures are of a whole document, and what was made has none."
    )


class Split(BaseModel, extra="forbid", strict=True):
    """What the child has done, or not, because a page is `missing` or the children were too many."""

    page_count: Count
    children: Count
    missing: Count | None
    signature_dropped: bool


class SplitProcessor:
    """Data: a SplitResult.

    Raises what a `ConfinedChild` of this name raises, Permanent with a code of FAILURES, `page-out-of-range` or
    `too-many-outputs`, and what Outputs raise.
    """

    name = "split"
    version = "1"
    description = "Makes documents of the pages of a PDF: of those that are listed, of ranges, or of every so many."
    content_types = CONTENT_TYPES
    at_once = AT_ONCE
    params = SplitParams
    result = SplitResult

    def __init__(self, *, memory: int = 512 * 1024**2) -> None:
        self._child = confined(self.name, Split, memory)

    async def run(self, source: Source, params: SplitParams, report: Report, outputs: Outputs) -> dict[str, Any]:
        children: list[dict[str, Any]] = []
        parts = dict(enumerate(params.file_map or ()))

        async def on_file(told: dict[str, Any], chunks: AsyncIterator[bytes]) -> None:
            known, part = Told.model_validate(told), parts.get(len(children))
            name = (part and part.name) or _name(source.filename, params, len(children) + 1, known.of)
            metadata = part.metadata.model_dump(exclude_none=True) if part and part.metadata else None
            children.append(
                MadeDocument.of(await outputs.add_document(name, chunks, metadata)) | {"pages": known.pages}
            )

        listed = [part.pages for part in params.file_map] if params.file_map else None
        task = {"work": "split", "arguments": [listed, params.parsed_ranges(), params.every or 1, MAX_FILES]}
        split = await self._child.run(source.path, task, report, max_line=MAX_LINE, on_file=on_file)
        if split.missing is not None:
            raise _out_of_range(split.missing, split.page_count, params)
        if split.children > MAX_FILES:
            detail = f"{split.children} documents would be made: {MAX_FILES} are the most."
            raise Permanent("too-many-outputs", detail)
        return {
            "children": children,
            "page_count": split.page_count,
            "signature_dropped": split.signature_dropped,
        }


def _name(filename: str, params: SplitParams, number: int, of: int) -> str:
    last = "_".join(filter(None, (f"{number:0{len(str(of))}}", params.suffix)))
    return joined(PurePosixPath(filename).stem, before=params.prefix, after=last)


def _out_of_range(missing: int, count: int, params: SplitParams) -> Permanent:
    first, way = (1, "ranges") if params.ranges else (0, "file_map")
    detail = f"There is no page {missing + first}: the document has {count}, which `{way}` counts from {first}."
    return Permanent("page-out-of-range", detail)
