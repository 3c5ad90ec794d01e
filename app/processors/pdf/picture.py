"""Draws one page of a PDF, in a `ConfinedChild`: see `app/documents/pictures.py`.

The document is standard input. Output is one JSON line: `{"result": {…}}` of the model `Drawn`, or `{"error": code}`.
"""

import struct
import sys
import zlib
from base64 import b64encode
from collections.abc import Mapping
from math import sqrt
from typing import Any

from app.processors.sandbox.output import emit
from app.processors.text.child import code_of

TALLEST = 4  # times the width
MAX_PIXELS = 4_000_000  # A4 with 1600 pixels in its width has 3.6 million
LEVEL = 3  # of compression: 6 takes four times as long for a scan, and saves a fortieth

_TRUE_COLOUR = struct.pack(">BBBBB", 8, 2, 0, 0, 0)  # 8 bits for each of red, green and blue


def main(task: Mapping[str, Any]) -> None:
    """Print the picture of the task's page `number`, which counts from 1, at most `width` pixels wide."""
    try:
        emit({"result": _drawn(task["number"], task["width"])})
    except ImportError:  # the installation is broken, not the document
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        emit({"error": code_of(error)})


def _drawn(number: int, width: int) -> dict[str, Any]:
    """Return how many pages there are, and the picture if the page is one of them."""
    from app.processors.text.pdf import opened  # noqa: PLC0415 - what cannot be imported

    pdf = opened(sys.stdin.buffer)
    if not 1 <= number <= len(pdf):
        return {"page_count": len(pdf), "png": None}
    if pdf.get_formtype():
        pdf.init_forms()
    page = pdf[number - 1]
    bitmap = page.render(scale=_scale(width, *page.get_size()), rev_byteorder=True)
    picture = png(bitmap.width, bitmap.height, memoryview(bitmap.buffer).cast("B"), bitmap.stride)
    return {"page_count": len(pdf), "png": b64encode(picture).decode()}


def _scale(pixels: int, width: float, height: float) -> float:
    """Return the scale by which a page is so many pixels wide, unless it is too tall or has too many then."""
    tallest = TALLEST * pixels
    # Sides are rounded up: with half a pixel less, they are those that were asked for.
    return min((pixels - 0.5) / width, (tallest - 0.5) / height, sqrt(MAX_PIXELS / (width * height)))


def png(width: int, height: int, pixels: memoryview, stride: int) -> bytes:
    """Return a PNG (ISO/IEC 15948) of pixels of three bytes; a row has `stride` bytes."""
    rows = b"".join(b"\0" + pixels[start : start + 3 * width] for start in range(0, stride * height, stride))
    header = struct.pack(">II", width, height) + _TRUE_COLOUR
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, LEVEL)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
