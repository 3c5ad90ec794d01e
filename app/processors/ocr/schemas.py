"""What the processor takes and gives."""

from types import GenericAlias
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model
from typing_extensions import TypeAliasType

from app.processors.base import Params
from app.processors.text.processor import MAX_CHARACTERS

OcrPages = TypeAliasType("OcrPages", Literal["needed", "all"])
OcrSource = TypeAliasType("OcrSource", Literal["ocr", "text-layer"])


class OcrParams(Params):
    """Which pages are recognised, and in which languages."""

    languages: list[str]
    pages: OcrPages = Field(
        "needed",
        description="`needed`: the pages that have images and next to no text, as `needs_ocr` of the processor `text` "
        "has them; the others keep the text that they have, which is exact. `all`: every page is recognised from its "
        "image, for files whose text is wrong, hidden, or drawn without images.",
    )
    max_characters: int = Field(MAX_CHARACTERS, ge=1, description="Text beyond this is cut off.")
    max_pages: int = Field(10_000, ge=1, le=50_000, description="Pages beyond this are not read.")


def params_for(languages: tuple[str, ...], characters: int) -> type[OcrParams]:
    """Return the params of a processor that knows these languages and gives at most so many characters."""
    literal: Any = Literal
    alias: Any = TypeAliasType  # type checkers know neither with what only a running process knows
    of_language = GenericAlias(list, (alias("OcrLanguage", literal[languages]),))
    default = "eng" if "eng" in languages else languages[0]
    asked = Field([default], min_length=1, max_length=8, description="Those that the pages are written in.")
    most = OcrParams.model_fields["max_characters"].description
    bounded = Field(min(MAX_CHARACTERS, characters), ge=1, le=characters, description=most)
    fields: Any = {"languages": (of_language, asked), "max_characters": (int, bounded)}
    return create_model("OcrParams", __base__=OcrParams, __doc__=OcrParams.__doc__, **fields)


class OcrPage(BaseModel):
    """A page."""

    number: int = Field(description="Counted from 1.")
    text: str
    source: OcrSource | None = Field(description="Where the text comes from; `null`: the page cannot be read.")
    confidence: float | None = Field(
        description="How sure the recognition is of its words, on average, from 0 to 100; `null` if there are none."
    )


class OcrResult(BaseModel):
    """What was recognised, and what was text already."""

    text: str = Field(
        description="Lines are as on the page, blank lines divide the paragraphs of what was recognised, and form "
        "feeds the pages, up to the last that has text.",
        examples=["Invoice 42\n\nThank you for your order."],
    )
    characters: int
    words: int = Field(description="What is divided by white space.")
    truncated: bool = Field(description="Text, or pages, were cut off: see the params.")
    languages: list[str] = Field(description="Those that were looked for.", examples=[["eng"]])
    pages: list[OcrPage] = Field(description="Those that were read.")
    page_count: int = Field(description="All pages.")
    unreadable_pages: list[int] = Field(
        description="Numbers of the pages that are damaged, or take more memory or time than one page may."
    )
