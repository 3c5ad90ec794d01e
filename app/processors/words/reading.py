"""The text that others have read, and its words."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from app.processors.base import Permanent, Source

_THIN = 10  # characters of a page; `text` says the same of one that needs OCR
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # noqa: RUF001 - letters, and what joins them


class Reading(NamedTuple):
    """A text, and the language that the document states (RFC 5646), or None."""

    text: str
    language: str | None


async def read(source: Source) -> Reading:
    """Return what `text` has read of the document, or what `ocr` has if that is more.

    `ocr` is asked only where the pages have next to no text. Raises Permanent `text-needed` if neither has read it.
    """
    text = await source.result("text")
    found = [each for each in (text, await source.result("ocr") if _is_thin(text) else None) if each]
    if not found:
        raise Permanent("text-needed", "Nobody has read the document: `text` has to run first, alone or as a stage.")
    richest = max(found, key=lambda each: len(each.get("text") or ""))
    return Reading(richest.get("text") or "", next((each["language"] for each in found if each.get("language")), None))


def _is_thin(text: dict[str, Any] | None) -> bool:
    if text is None or text.get("needs_ocr"):
        return True
    return len(text.get("text") or "") < _THIN * (text.get("page_count") or 1)


def words(text: str) -> Iterator[str]:
    """Yield the words of a text: its letters, with apostrophes and hyphens between them."""
    return (found[0] for found in _WORD.finditer(text))
