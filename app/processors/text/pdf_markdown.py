"""The Markdown of a PDF: by liteparse, which finds headings, lists and tables, if it is installed; else, and where it
loses text, plain text under a heading for each page."""

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO

from app.processors.text import markdown
from app.processors.text.output import clean
from app.processors.text.pdf import read_by

OPTIONAL = "liteparse"
TOLERANCE = 0.01  # of a page's letters and digits, which may be read in another way

_LARGEST = 64 * 1024**2  # bytes; it holds a file in memory, twice
_AT_ONCE = 100  # pages: sizes of headings are compared among them, and 1,000 take 400 MB
_PAGE_HEADING = 2
_FENCE = "```"
_MARKUP = re.compile(r"[\[\]]|<(?!br>)|&(?=#?\w+;)")


def read(file: BinaryIO, characters: int, pages: int) -> dict[str, Any]:
    """Return the result for a PDF, of which at most `characters` of Markdown for `pages` pages are made."""
    return read_by(_Markdown(file, pages), file, characters, pages)


class _Markdown:
    between = "\n\n"

    def __init__(self, file: BinaryIO, pages: int) -> None:
        self.engine = "pdfium"
        self.plain_pages: list[int] = []
        self._file = file
        self._most = pages
        self._begun = False
        self._pages: Iterator[tuple[int, str]] = iter(())
        self._next = (0, "")  # of those pages

    def page(self, number: int, said: str) -> str:
        """Return the Markdown of a page with this text."""
        if not self._begun:  # only now is it known that the file is sound
            self._begun = True
            self._begin()
        while self._next[0] < number:
            self._next = next(self._pages, (sys.maxsize, ""))
        made = self._next[1] if self._next[0] == number else ""
        if not said or (made and _same(said, made)):
            return made if said else ""
        if self.engine == OPTIONAL:
            self.plain_pages.append(number)
        lines = "\n".join(line.strip() for line in markdown.escaped(said).split("\n"))
        return f"{markdown.heading(_PAGE_HEADING, f'Page {number}')}\n\n{markdown.lines(lines)}"

    def _begin(self) -> None:
        self._file.seek(0)
        data = self._file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            return
        try:
            self._pages = _pages(data, self._most)
        except ImportError:  # it is not installed
            return
        self.engine = OPTIONAL


def _pages(data: bytes, most: int) -> Iterator[tuple[int, str]]:
    """Return the pages that liteparse can read, up to the first that it fails on: their numbers, and their Markdown.
    Raises ImportError."""
    os.environ["TOKIO_WORKER_THREADS"] = "1"  # or it starts one for each core, which have nothing to do
    liteparse: Any = import_module(OPTIONAL)

    def parsed() -> Iterator[tuple[int, str]]:
        try:
            parser = liteparse.LiteParse(
                output_format="markdown",
                ocr_enabled=False,  # or it fetches models
                keep_headers_footers=True,  # or it drops what it takes for some
                continue_on_page_error=True,
                extract_links=False,  # their targets are not checked
                image_mode="off",
                max_pages=most,
                num_workers=1,
                quiet=True,
            )
            for batch in parser.parse_batches(data, _AT_ONCE):
                for page in batch.result.pages:
                    yield page.page_num, _tidy(page.markdown)
        except (MemoryError, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001 - a panic of its own is none of Exception; the other pages are plain text
            return

    return parsed()


def _tidy(text: str) -> str:
    """Escape what liteparse leaves as it is in the text: HTML, links and entities."""
    parts = clean(text).split(_FENCE)
    parts[::2] = [_MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
    return _FENCE.join(parts).strip()


def _same(said: str, made: str) -> bool:
    """Whether the Markdown has the letters and digits of the text, each as often."""
    ours, theirs = _letters(said), _letters(made.replace("<br>", " "))
    differ = (ours - theirs).total() + (theirs - ours).total()
    return differ <= TOLERANCE * ours.total()


def _letters(text: str) -> Counter[str]:
    return Counter(filter(str.isalnum, unicodedata.normalize("NFKC", text)))
