"""The language of a document."""

import asyncio
import os
from typing import Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from app.processors.base import Params, Report, Source
from app.processors.words.languages import COMMON, language_of
from app.processors.words.reading import read, words

LanguageSource = TypeAliasType("LanguageSource", Literal["document", "words"])


class LanguageParams(Params):
    """There is nothing to choose."""


class LanguageResult(BaseModel):
    """The language of a document, as far as it can be told."""

    language: str | None = Field(
        description="What the document states (RFC 5646), or else one of "
        f"{', '.join(COMMON)} (ISO 639-1) if its words are clearly of that; `null`: it cannot be told.",
        examples=["en"],
    )
    source: LanguageSource | None = Field(description="Who says so: the document, or its words.")


class LanguageProcessor:
    """Data: a LanguageResult. Raises Permanent `text-needed`."""

    name = "language"
    version = "1"
    description = "Tells the language of what `text` or `ocr` has read."
    at_once = os.cpu_count() or 1
    weight = 0.1
    params = LanguageParams
    result = LanguageResult

    async def run(self, source: Source, params: LanguageParams, report: Report) -> dict[str, Any]:
        text, stated = await read(source)
        if stated:
            return {"language": stated, "source": "document"}
        found = await asyncio.to_thread(language_of, words(text))
        return {"language": found, "source": found and "words"}
