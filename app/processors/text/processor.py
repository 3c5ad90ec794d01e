"""Extracts text, form fields and metadata."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model
from typing_extensions import TypeAliasType

from app.processors.base import LongList, LongText, Params, Report, Source
from app.processors.child import ConfinedChild
from app.processors.text.chunks import Chunking, TextChunk, chunks
from app.processors.text.pages import SHORT, needs_ocr, pages_of

MAX_CHARACTERS = 1_000_000
# Bytes; a line has at most 64 Ki characters of text, or two numbers for each page, of Markdown three.
MAX_LINE = {"text": 512 * 1024, "markdown": 768 * 1024}
BETWEEN = {"text": 1, "markdown": 2}  # characters between two pages: a form feed, or a blank line
_PDF = "application/pdf"
_MORE_THAN_CORES = 2  # children at once; some wait for the disk or begin while others compute

FAILURES = {
    "password-protected": "The document opens only with a password.",
    "unsupported-encryption": "The document is encrypted with a certificate, or in a way that is not known here.",
    "malformed-document": "The document is damaged.",
}

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]

TextFormat = TypeAliasType("TextFormat", Literal["text", "markdown"])
TextEngine = TypeAliasType("TextEngine", Literal["docx", "pdfium", "liteparse"])


class TextParams(Params):
    """How much of a document is read, and what is made of it."""

    format: TextFormat = Field(
        "text",
        description="What `text` is: plain text, or Markdown (GFM) with headings, lists, tables, emphasis, links and "
        "notes, as far as the document has them and the `engine` finds them.",
    )
    chunks: Chunking | None = Field(None, description="Cut the text into pieces, for retrieval.")
    max_characters: int = Field(MAX_CHARACTERS, ge=1, description="Text beyond this is cut off.")
    max_pages: int = Field(10_000, ge=1, le=50_000, description="Pages of a PDF beyond this are not read.")


def params_up_to(characters: int) -> type[TextParams]:
    """Return the params of a processor that reads at most so many characters of a document."""
    default = TextParams.model_fields["max_characters"]
    bounded = Field(min(MAX_CHARACTERS, characters), ge=1, le=characters, description=default.description)
    return create_model("TextParams", __base__=TextParams, __doc__=TextParams.__doc__, max_characters=(int, bounded))


class FormField(BaseModel, extra="forbid", strict=True):
    """A field of a form that was filled in, or a content control."""

    name: Text
    value: Text


class Extract(BaseModel, extra="forbid", strict=True):
    """What the child found besides the text. `pages` has the numbers of characters and images of each page, -1 images
    for a page that is damaged."""

    engine: TextEngine
    pages: list[tuple[int, int]] | None
    plain_pages: list[int]
    page_count: int | None
    words: int
    truncated: bool
    form: list[FormField]
    language: Text | None
    metadata: dict[Text, Text]


class TextPage(BaseModel):
    """A page of a PDF."""

    number: int = Field(description="Counted from 1.")
    text: str
    characters: int
    images: int = Field(description="Pictures on it.")


class TextResult(BaseModel):
    """What was read."""

    text: str = Field(
        description="Each line and each paragraph is a line, tabs divide columns, and form feeds the pages of a "
        "PDF, up to the last that has text. In Markdown, blank lines divide both.",
        examples=["Invoice 42\nItem\tAmount"],
    )
    engine: TextEngine = Field(
        description="What read it: `docx`, the service's own reader of DOCX; `pdfium`, which reads the text of PDF "
        "and whose Markdown has no more than a heading `Page n` for each page; or `liteparse`, which finds headings, "
        "lists and tables in PDF, if the operator has installed it."
    )
    characters: int
    words: int = Field(description="What is divided by white space.")
    truncated: bool = Field(description="Text, or pages, were cut off: see the params.")
    language: str | None = Field(
        description="The language tag that the document states (RFC 5646).", examples=["en-GB"]
    )
    pages: list[TextPage] | None = Field(description="Those that were read; `null` for DOCX.")
    plain_pages: list[int] = Field(
        description="Numbers of the pages that are as `pdfium` makes them nevertheless, because `liteparse` loses or "
        "adds text there, or fails."
    )
    page_count: int | None = Field(description="All pages; `null` for DOCX.")
    unreadable_pages: list[int] = Field(description="Numbers of the pages that are damaged.")
    needs_ocr: list[int] = Field(description="Numbers of the pages that have images and next to no text.")
    form: list[FormField] = Field(description="Fields of forms and content controls, by their names.")
    metadata: dict[str, str] = Field(
        description=(
            "Those of title, author, subject, keywords, creator, producer, created and modified (RFC 3339, UTC) that "
            "the document states."
        ),
        examples=[{"title": "Invoice 42", "created": "2026-01-31T12:00:00Z"}],
    )
    chunks: list[TextChunk] | None = Field(description="Pieces of `text` in their order; `null` if not asked for.")


class TextProcessor:
    """Data: a TextResult.

    Raises what a `ConfinedChild` of this name raises, or Permanent with a code of FAILURES. The limits are those of
    the child, and `max_characters` is the most that the params can ask for.
    """

    name = "text"
    version = "3"
    description = "Extracts text page by page, or Markdown, form fields and metadata."
    at_once = (os.cpu_count() or 1) + _MORE_THAN_CORES
    result = TextResult

    def __init__(
        self,
        *,
        memory: int = 512 * 1024**2,
        cpu_seconds: int = 60,
        seconds: float = 120,
        max_characters: int = MAX_CHARACTERS,
        module: str = "app.processors.text.child",
    ) -> None:
        self.params = params_up_to(max_characters)
        self._child = ConfinedChild(
            name=self.name,
            module=module,
            result=Extract,
            failures=FAILURES,
            memory=memory,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
        )

    async def run(self, source: Source, params: TextParams, report: Report) -> dict[str, Any]:
        task = {
            "content_type": source.content_type,
            "format": params.format,
            "characters": params.max_characters,
            "pages": params.max_pages,
        }
        text = LongText(params.max_characters)
        threads = params.format == "markdown" and source.content_type == _PDF and find_spec("liteparse") is not None
        extract = await self._child.run(
            source.path, task, report, max_line=MAX_LINE[params.format], text=text, threads=threads
        )
        found = extract.model_dump()
        numbers, between = found["pages"], BETWEEN[params.format]
        pages = None if numbers is None else LongList(lambda: _pages(text, numbers, between))
        settings, sizes = params.chunks, numbers and [characters for characters, _ in numbers]
        cut = LongList(lambda: chunks(text, settings, sizes, between)) if settings else None
        counted = list(enumerate(numbers or (), 1))
        found["unreadable_pages"] = [number for number, (_, images) in counted if images < 0]
        found["needs_ocr"] = [number for number, page in counted if needs_ocr(*page)]
        first = {"characters": text.characters, **found}
        if text.characters <= SHORT:
            return {"text": "".join(text), **first, "pages": pages and list(pages), "chunks": cut and list(cut)}
        return {"text": text, **first, "pages": pages, "chunks": cut}


def _pages(text: LongText, numbers: list[tuple[int, int]], between: int) -> Iterator[dict[str, Any]]:
    """Yield the pages, between which the text has so many characters."""
    texts = pages_of(text, (characters for characters, _ in numbers), between)
    for number, (said, (characters, images)) in enumerate(zip(texts, numbers, strict=True), 1):
        yield {"number": number, "text": said, "characters": characters, "images": max(0, images)}
