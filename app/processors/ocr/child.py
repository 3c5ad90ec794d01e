"""Renders one page of a PDF, in a `ConfinedChild`.

The document is standard input. Output is one JSON line: `{"result": {…}}` of the model `Image`, or `{"error": code}`.
"""

import io
import sys
from base64 import b64encode
from collections.abc import Mapping
from math import sqrt
from typing import Any

from app.processors.sandbox.output import emit
from app.processors.text.child import code_of

DPI = 200
POINTS = 72  # of an inch
# A4 at this resolution has 4 million pixels, A3 twice as many. What is larger is rendered more coarsely.
MAX_PIXELS = 10_000_000
MAX_SIDE = 30_000  # pixels; Tesseract takes 32,767


def main(task: Mapping[str, Any]) -> None:
    """Print the image of the task's `page`, which counts from 1."""
    try:
        emit({"result": {"png": b64encode(_png(task["page"])).decode()}})
    except ImportError:  # the installation is broken, not the document
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        emit({"error": code_of(error)})


def _png(number: int) -> bytes:
    """Return the page in shades of grey."""
    from app.processors.text.pdf import opened  # noqa: PLC0415 - what cannot be imported

    pdf = opened(sys.stdin.buffer)
    if pdf.get_formtype():
        pdf.init_forms()
    page = pdf[number - 1]
    width, height = page.get_size()
    scale = min(DPI / POINTS, sqrt(MAX_PIXELS / (width * height)), MAX_SIDE / max(width, height))
    image = page.render(scale=scale, grayscale=True).to_pil()
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1, dpi=(scale * POINTS, scale * POINTS))
    return png.getvalue()
