"""How pictures of pages are written, and how many are kept."""

import io
import struct
import zlib
from uuid import uuid4

from PIL import Image

from app.documents.pictures import Drawn, Kept, Wanted
from app.files.models import File
from app.processors.pdf.picture import png
from tests.support.factories import PDF_TYPE


def test_a_png_is_written_row_by_row() -> None:
    pixels = memoryview(bytes([255, 0, 0, 0, 255, 0, 9, 9]) + bytes([0, 0, 255, 1, 2, 3, 9, 9]))
    made = png(2, 2, pixels, 8)
    found = Image.open(io.BytesIO(made))
    assert [found.getpixel((x, y)) for y in (0, 1) for x in (0, 1)] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (1, 2, 3),
    ]
    assert made.endswith(b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))


def test_what_is_kept_is_bounded() -> None:
    kept = Kept(10 * 1024)
    files = [File(uuid4(), "", PDF_TYPE, 1, None) for _ in range(4)]
    wanted = Wanted(1, 100)

    def add(number: int, size: int) -> None:
        kept.add(files[number], wanted, Drawn.model_construct(page_count=number, png=bytes(size)))

    def there() -> list[int]:
        return [number for number, file in enumerate(files) if kept.get(file, wanted)]

    for number, size in ((0, 2048), (1, 2048), (2, 1024), (0, 2048)):
        add(number, size)
    assert there() == [0, 1, 2]
    kept.get(files[0], wanted)
    add(3, 4096)
    assert there() == [0, 2, 3]
    add(1, 20_000)
    assert there() == []
    for number in range(3):
        add(number, 2048)
    assert there() == [0, 1, 2]
