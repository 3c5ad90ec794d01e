"""Pieces of a text of about one size, which overlap: what retrieval searches in."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from app.processors.base import Params

# Where a piece may end, the best first: behind a paragraph, a sentence, a line and a word.
_ENDS = tuple(map(re.compile, (r"\n\n+|\f+", r"[.!?…。！？]+[\"'”’»)\]]*\s+|[。！？]+", r"\n", r"\s")))  # noqa: RUF001
_SPACE = re.compile(r"\s")


class Chunking(Params):
    """Sizes of chunks, in characters (Unicode code points)."""

    size: int = Field(1000, ge=100, le=100_000, description="A chunk has at most so many.")
    overlap: int = Field(
        0,
        ge=0,
        le=50_000,
        description="A chunk begins at most so many before the end of the one before it: up to half of `size`.",
    )

    @model_validator(mode="after")
    def _overlap_is_less(self) -> Self:
        if self.overlap * 2 > self.size:
            raise ValueError("overlap must be at most half of size")
        return self


class TextChunk(BaseModel):
    """A piece of the text, which ends behind a paragraph, a sentence or a word where it can."""

    number: int = Field(description="Counted from 1.")
    text: str
    start: int = Field(description="Of its first character in `text`, counted from 0, in Unicode code points.")
    end: int = Field(description="Behind its last character.")
    pages: list[int] | None = Field(description="Numbers of the pages that it has text of; `null` for DOCX.")


def chunks(
    text: Iterable[str], settings: Chunking, pages: Sequence[int] | None, between: int
) -> Iterator[dict[str, Any]]:
    """Yield each TextChunk of a text that comes in pieces, of which only some are held.

    `pages` has the number of characters of each page, None for a document without pages, and `between` is how many
    there are between two of them.
    """
    pieces, held, dropped = iter(text), "", 0  # what is held comes behind what was dropped
    start = 0  # in `held`, as `end` is
    covered = _Pages(pages, between) if pages is not None else None
    for number in count(1):
        if len(held) - start <= settings.size:
            held, dropped, start = held[start:], dropped + start, 0
            while len(held) <= settings.size and (piece := next(pieces, "")):
                held += piece
        if not held:
            return
        is_last = len(held) - start <= settings.size
        end = len(held) if is_last else _end(held, start, settings)
        yield {
            "number": number,
            "text": held[start:end],
            "start": dropped + start,
            "end": dropped + end,
            "pages": covered.within(dropped + start, dropped + end) if covered else None,
        }
        if is_last:
            return
        start = _next_start(held, end, settings.overlap)


def _end(text: str, start: int, settings: Chunking) -> int:
    """Return where a chunk ends in a text that is longer: not so early that there are more than twice as many."""
    least = start + settings.overlap + (settings.size - settings.overlap) // 2
    for kind in _ENDS:
        ends = [match.end() for match in kind.finditer(text, least, start + settings.size)]
        if ends:
            return ends[-1]
    return start + settings.size


def _next_start(text: str, end: int, overlap: int) -> int:
    """Return where the next chunk starts: with a word, if one starts in the overlap."""
    if not overlap:
        return end
    first = end - overlap
    if text[first - 1].isspace():
        return first
    found = _SPACE.search(text, first, end)
    return found.end() if found and found.end() < end else first


class _Pages:
    """Says which pages ranges of the text are on, whose starts only rise."""

    def __init__(self, sizes: Sequence[int], between: int) -> None:
        self._sizes = sizes
        self._between = between
        self._first = 0  # index of the first page that does not end before the range …
        self._start = 0  # … and where it starts

    def within(self, start: int, end: int) -> list[int]:
        while self._first < len(self._sizes) and self._start + self._sizes[self._first] <= start:
            self._start += self._sizes[self._first] + self._between
            self._first += 1
        found, at = [], self._start
        for index in range(self._first, len(self._sizes)):
            if at >= end:
                break
            if self._sizes[index]:
                found.append(index + 1)
            at += self._sizes[index] + self._between
        return found
