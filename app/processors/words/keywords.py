"""The words that a document is about."""

import asyncio
import os
from collections import Counter
from typing import Any

from pydantic import BaseModel, Field

from app.processors.base import Params, Report, Source
from app.processors.words.languages import WORDS, language_of
from app.processors.words.reading import read, words

_SHORT = 3  # letters that a word has at least
_OF_ANY = frozenset[str]().union(*WORDS.values())


class KeywordsParams(Params):
    """How many there are to be."""

    most: int = Field(20, ge=1, le=100, description="Keywords, at the most.")


class Keyword(BaseModel):
    """A word that the document has often."""

    word: str = Field(description="As it is spelled most often.", examples=["invoice"])
    count: int = Field(description="How often it is there, in any case.")
    score: float = Field(description="That, relative to the first keyword's: from 0 to 1.")


class KeywordsResult(BaseModel):
    """The words that a document has most often, but for those that every text has."""

    keywords: list[Keyword] = Field(
        description="The most frequent first; of equally frequent ones, that which comes first in the text."
    )
    words: int = Field(description="All words of the text.")


class KeywordsProcessor:
    """Data: a KeywordsResult, the same for the same text.

    Words are ranked by how often they occur. Left out are those of fewer than three letters, and the commonest of the
    text's language, or if that cannot be told, of all that are known. Inflected forms are words of their own, and text
    without spaces between words, as in Chinese, has none of use. Raises Permanent `text-needed`.
    """

    name = "keywords"
    version = "1"
    description = "Ranks the words of what `text` or `ocr` has read by how often they occur."
    at_once = os.cpu_count() or 1
    weight = 0.1
    params = KeywordsParams
    result = KeywordsResult

    async def run(self, source: Source, params: KeywordsParams, report: Report) -> dict[str, Any]:
        text, _ = await read(source)
        return await asyncio.to_thread(_ranked, text, params.most)


def _ranked(text: str, most: int) -> dict[str, Any]:
    spelled = Counter(words(text))
    common = WORDS.get(language_of(words(text)) or "", _OF_ANY)
    spellings: dict[str, Counter[str]] = {}
    for word, count in spelled.items():  # in the order of the text
        folded = word.casefold()
        if len(folded) >= _SHORT and folded not in common:
            spellings.setdefault(folded, Counter())[word] = count
    counted = Counter({folded: each.total() for folded, each in spellings.items()}).most_common(most)
    keywords = [
        {"word": spellings[folded].most_common(1)[0][0], "count": count, "score": round(count / counted[0][1], 3)}
        for folded, count in counted
    ]
    return {"keywords": keywords, "words": spelled.total()}
