"""The pages that a long text has: where they are, and which are only scanned."""

from collections.abc import Iterable, Iterator

SHORT = 16 * 1024  # characters of a text that is no burden as a plain string
OCR_BELOW = 10  # characters of a page with images, which are its number or a stamp


def pages_of(text: Iterable[str], sizes: Iterable[int], between: int) -> Iterator[str]:
    """Yield the text of each page, of a text that comes in pieces. `sizes` has the number of characters of each, and
    `between` is how many there are between two."""
    pieces, here = iter(text), ""
    for characters in sizes:
        while len(here) < characters + between and (piece := next(pieces, "")):
            here += piece
        yield here[:characters]
        here = here[characters + between :]


def needs_ocr(characters: int, images: int) -> bool:
    """Whether a page has images, and next to no text."""
    return images > 0 and characters < OCR_BELOW
