"""The text of a document, put together page by page."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from app.processors.base import LongList, LongText
from app.processors.ocr.schemas import OcrSource
from app.processors.text.pages import SHORT, pages_of

_PIECE = 32 * 1024  # characters


class _Page(NamedTuple):
    """A page of the result, without its text, which has so many characters."""

    characters: int
    source: OcrSource | None
    confidence: float | None


class Written:
    """The text so far, at most `limit` characters, and its pages."""

    def __init__(self, limit: int) -> None:
        self.text = LongText(limit)
        self.pages: list[_Page] = []
        self.words = 0
        self.truncated = False
        self._gap = ""

    def add(self, said: str, source: OcrSource | None, confidence: float | None = None) -> None:
        """Add a page."""
        taken = (self._gap + said)[: self.text.limit - self.text.characters] if said else ""
        for start in range(0, len(taken), _PIECE):
            self.text.append(taken[start : start + _PIECE])
        self.pages.append(_Page(max(0, len(taken) - len(self._gap)), source, confidence))
        self.words += len(taken.split())
        self.truncated = bool(said) and len(taken) < len(self._gap) + len(said)
        self._gap = "\f" if said else self._gap + "\f"

    def result(self, **more: Any) -> dict[str, Any]:
        """Return the data of an OcrResult, with what is `more` in it."""
        unreadable = [number for number, page in enumerate(self.pages, 1) if page.source is None]
        found = {"characters": self.text.characters, "words": self.words, "unreadable_pages": unreadable, **more}
        if self.text.characters <= SHORT:
            return {"text": "".join(self.text), **found, "pages": list(self._pages())}
        return {"text": self.text, **found, "pages": LongList(self._pages)}

    def _pages(self) -> Iterator[dict[str, Any]]:
        """Yield each OcrPage."""
        texts = pages_of(self.text, (page.characters for page in self.pages), 1)
        for number, (text, page) in enumerate(zip(texts, self.pages, strict=True), 1):
            yield {"number": number, "text": text, "source": page.source, "confidence": page.confidence}
