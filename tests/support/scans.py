"""Scanned documents, and whether there is what reads them."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from pypdfium2 import PdfDocument

from app.processors.ocr import tesseract
from app.processors.ocr.tesseract import TesseractMissing

DPI = 200


def missing() -> str | None:
    """Why the processor `ocr` cannot be tested here, or None if it can."""
    try:
        tesseract.found()
    except TesseractMissing as reason:
        return str(reason)
    return None


needs_tesseract = pytest.mark.skipif(missing() is not None, reason=f"ocr: {missing()}")


def scanned(document: bytes) -> bytes:
    """Return a PDF whose pages are images of those of another, and nothing else."""
    first, *others = _images(document)
    scan = io.BytesIO()
    first.save(scan, "PDF", save_all=True, append_images=others, resolution=DPI)
    return scan.getvalue()


def _images(document: bytes) -> Iterator[Image.Image]:
    pdf = PdfDocument(document)
    yield from (page.render(scale=DPI / 72, grayscale=True).to_pil() for page in pdf)
    pdf.close()
