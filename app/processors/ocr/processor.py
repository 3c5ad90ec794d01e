"""Recognises the text of scanned pages."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Base64Bytes, BaseModel

from app.processors.base import LongText, Permanent, Report, Source
from app.processors.child import ConfinedChild
from app.processors.ocr.schemas import OcrParams, OcrResult, params_for
from app.processors.ocr.tesseract import Recognised, Tesseract
from app.processors.ocr.written import Written
from app.processors.text.pages import needs_ocr, pages_of
from app.processors.text.processor import FAILURES, MAX_CHARACTERS, MAX_LINE, Extract

_LINE = MAX_LINE["text"]
_MAX_IMAGE = 16 * 1024**2  # bytes of JSON, which has 10 million pixels as base64
_OF_THE_TIME = 0.9  # that an attempt may take: what is not done by then would not be done by the next one either


class Image(BaseModel, extra="forbid", strict=True):
    """What the child made of a page."""

    png: Base64Bytes


class OcrProcessor:
    """Data: an OcrResult.

    Raises what a `ConfinedChild` of this name raises, or Permanent with a code of FAILURES. `seconds`: how long an
    attempt may take.
    """

    name = "ocr"
    description = "Recognises the text of scanned pages, and reads the other pages' own."
    at_once = os.cpu_count() or 1
    content_types = ("application/pdf",)
    result = OcrResult

    def __init__(
        self,
        tesseract: Tesseract,
        *,
        max_characters: int = MAX_CHARACTERS,
        seconds: float = 600,
        memory: int = 512 * 1024**2,
    ) -> None:
        # What was made with other data is made anew, and is not made by workers that have other data.
        self.version = f"1+tesseract-{tesseract.version}+{tesseract.digest}"
        self.params = params_for(tesseract.languages, max_characters)
        self._tesseract = tesseract
        self._seconds = seconds * _OF_THE_TIME
        self._reader = ConfinedChild(
            name=self.name, module="app.processors.text.child", result=Extract, failures=FAILURES, memory=memory
        )
        self._renderer = ConfinedChild(
            name=self.name, module="app.processors.ocr.child", result=Image, failures=FAILURES, memory=memory
        )

    async def needed(self, source: Source) -> bool:
        """Whether a page has images, and next to no text. Raises as `run` does."""
        extract, _ = await self._layer(source, self.params.model_validate({}))
        return any(needs_ocr(*page) for page in extract.pages or [])

    async def run(self, source: Source, params: OcrParams, report: Report) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(source, params, report)
        except TimeoutError:
            detail = "Recognising all pages takes longer than an attempt may: ask for fewer with `max_pages`."
            raise Permanent(f"{self.name}-timeout", detail) from None

    async def _read(self, source: Source, params: OcrParams, report: Report) -> dict[str, Any]:
        extract, layer = await self._layer(source, params)
        needed = params.pages == "needed"
        pages, page_count = extract.pages or [], extract.page_count or 0
        if not needed:  # as if none had text
            pages = [(0, 1)] * min(page_count, params.max_pages)
        written = Written(params.max_characters)
        to_do, done = sum(needs_ocr(*page) for page in pages), 0
        failure = None
        for number, (said, page) in enumerate(zip(_texts(layer, pages), pages, strict=True), 1):
            if not needs_ocr(*page):
                written.add(said, "text-layer" if page[1] >= 0 else None)
                continue
            try:
                text, confidence = await self._recognised(source.path, number, params.languages)
                written.add(text, "ocr", confidence)
            except Permanent as error:  # it costs only this page
                failure = error
                written.add("", None)
            done += 1
            report(done / to_do)
            if written.truncated:
                break
        if failure and not any(page.source for page in written.pages):
            raise failure
        truncated = written.truncated or len(pages) < page_count or (needed and extract.truncated)
        return written.result(languages=params.languages, page_count=page_count, truncated=truncated)

    async def _layer(self, source: Source, params: OcrParams) -> tuple[Extract, LongText]:
        """Return what is known of the pages, and the text that the document has."""
        layer, task = LongText(params.max_characters), _reading(source, params)
        return await self._reader.run(source.path, task, _ignore, max_line=_LINE, text=layer), layer

    async def _recognised(self, document: Path, page: int, languages: Sequence[str]) -> Recognised:
        """Return what is on a page. Raises Permanent if it cannot be read."""
        image = await self._renderer.run(document, {"page": page}, _ignore, max_line=_MAX_IMAGE)
        return await self._tesseract.recognise(image.png, languages, name=self.name)


def _reading(source: Source, params: OcrParams) -> dict[str, Any]:
    """Return the task of reading the text that the document has."""
    limits = {"characters": params.max_characters, "pages": params.max_pages}
    return {"content_type": source.content_type, "format": "text", **limits}


def _texts(layer: LongText, pages: Sequence[tuple[int, int]]) -> Iterator[str]:
    return pages_of(layer, (characters for characters, _ in pages), 1)


def _ignore(progress: float) -> None:
    """Rendering and reading are little of the work."""
