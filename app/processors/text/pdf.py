"""The text of a PDF, by PDFium; pikepdf repairs what PDFium cannot open."""

import ctypes
import io
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple, Protocol

import pypdfium2
from pypdfium2 import raw

from app.processors.sandbox.output import emit
from app.processors.text.output import Form, Text, clean
from app.processors.text.pdf_metadata import language, metadata, text_of

UNREADABLE = -1  # in the place of the number of images: the page is damaged
WIDE_GAP = 1.0  # of a line's height: what lies further apart is in another column
LOOSE = 0.5  # of a line's height for each character, on average: a denser line has no wide gap
SCANNED_DEPTH = 3  # of forms within forms, in which images are counted

_HYPHEN = "\ufffe"  # PDFium's mark for a hyphen at the end of a line, whose other half it has joined
_HYPHEN_UNIT = 2  # the same mark where characters are asked for one by one
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# The word boundaries keep them linear: a word may be as long as a page.
_BROKEN_WORD = re.compile(rf"(\b\w+|){_HYPHEN}(\w*)")
_COMPOUND = re.compile(r"\b\w+-\w+")
_PREFIXES = {"all", "anti", "cross", "ex", "half", "mid", "non", "quasi", "self", "semi", "well"}  # of compounds
_SPACES = re.compile(" +")
_PUSH_BUTTON, _SIGNATURE = raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE


class _Box(NamedTuple):
    """In points, from the lower left."""

    left: float
    bottom: float
    right: float
    top: float

    def holds(self, other: "_Box") -> bool:
        """Whether the middle of the other is within."""
        x, y = (other.left + other.right) / 2, (other.bottom + other.top) / 2
        return self.left <= x <= self.right and self.bottom <= y <= self.top


class Writer(Protocol):
    """Makes what the result says of the text of pages, which come in their order."""

    engine: str
    between: str
    """What divides two pages."""
    plain_pages: list[int]
    """Of Markdown: the numbers of pages that are plain text nevertheless."""

    def page(self, number: int, said: str) -> str:
        """Return what is said of a page with this text."""


class PlainText:
    """Writes text as it is."""

    engine = "pdfium"
    between = "\f"
    plain_pages: list[int] = []  # noqa: RUF012 - there never are any

    def page(self, number: int, said: str) -> str:
        return said


def read(file: BinaryIO, characters: int, pages: int) -> dict[str, Any]:
    """Return the result for a PDF, of which at most `characters` of text on `pages` pages are read."""
    return read_by(PlainText(), file, characters, pages)


def read_by(writer: Writer, file: BinaryIO, characters: int, pages: int) -> dict[str, Any]:
    """Return the result for a PDF, of which the writer writes at most `characters` on `pages` pages.

    A page that cannot be read has no text, and UNREADABLE images. Raises PdfiumError if none can be read.
    """
    pdf = opened(file)
    if pdf.get_formtype():
        pdf.init_forms()
    text, form, hyphens = Text(characters), Form(), _Hyphens()
    found: list[tuple[int, int]] = []
    unreadable = 0
    gap, percent, count = "", 0, min(len(pdf), pages)
    for number in range(1, count + 1):
        try:
            said, images = _page(pdf, number - 1, form)
        except pypdfium2.PdfiumError:
            unreadable += 1
            if unreadable == count:
                raise
            said, images = "", UNREADABLE
        taken = 0
        if said := writer.page(number, clean(hyphens.resolved(said)).strip()):
            taken = max(0, text.add(gap + said) - len(gap))
            gap = ""
        found.append((taken, images))
        gap += writer.between
        if number * 100 // count != percent:
            percent = number * 100 // count
            emit({"progress": number / count})
        if text.truncated:
            break
    text.flush()
    return {
        "engine": writer.engine,
        "pages": found,
        "plain_pages": writer.plain_pages,
        "page_count": len(pdf),
        "words": text.words,
        "truncated": text.truncated or len(pdf) > pages,
        "form": form.fields,
        "language": language(pdf),
        "metadata": metadata(pdf, file),
    }


def opened(file: BinaryIO) -> Any:
    """Open a PDF; one that PDFium cannot open, after a repair. Raises PdfiumError."""
    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        pikepdf = import_module("pikepdf")
        repaired = io.BytesIO()
        file.seek(0)
        try:
            with pikepdf.open(file) as pdf:
                pdf.save(repaired)
            return pypdfium2.PdfDocument(repaired.getvalue())
        except (pikepdf.PdfError, pikepdf.PasswordError, pypdfium2.PdfiumError):
            raise error from None


def _page(pdf: Any, index: int, form: Form) -> tuple[str, int]:
    """Return the text of a page and the number of its images, and add its fields to the form. Raises PdfiumError."""
    page = pdf[index]
    try:
        if raw.FPDFPage_GetAnnotCount(page):
            if pdf.formenv:
                _read_fields(pdf.formenv, page, form)
            # Or fields, notes and signatures would have no text. It shows once the page is loaded again.
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
            page.close()
            page = pdf[index]
        page_text = page.get_textpage()
        try:
            said = "\n".join(_lines(page_text, _Box(*page.get_bbox())))
        finally:
            page_text.close()
        return said, _images(page)
    finally:
        page.close()


def _lines(page_text: Any, visible: _Box) -> Iterator[str]:
    """Yield the visible text of a page by lines, of which columns are divided by tabs."""
    start = 0
    for line in _characters(page_text).split("\r\n"):
        if line:
            yield _line(page_text.raw, line, start, visible)
        start += len(line) + 2


def _characters(page_text: Any) -> str:
    """Return the text of a page. A character's position is its index in PDFium."""
    count = page_text.count_chars()
    text: str = page_text.get_text_range() if count else ""
    if len(text) == count and max(text, default="") <= "\uffff":
        return text
    # PDFium counts UTF-16 units here, of which some letters have two. These are one, with a NUL in the second's place.
    unicode = raw.FPDFText_GetUnicode
    units = [unicode(page_text.raw, index) for index in range(count)]
    whole = "".join(_HYPHEN if unit == _HYPHEN_UNIT else chr(unit) for unit in units)
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le") + "\0", whole)


def _line(page_text: Any, line: str, start: int, visible: _Box) -> str:
    first, last = _box(page_text, start), _box(page_text, start + len(line) - 1)
    if not (visible.holds(first) and visible.holds(last)):
        kept = (each if visible.holds(_box(page_text, start + n)) else "" for n, each in enumerate(line))
        return "".join(kept)
    height = max(first.top - first.bottom, last.top - last.bottom)
    width = max(first.right, last.right) - min(first.left, last.left)
    if width <= LOOSE * height * len(line):
        return line

    def column(spaces: re.Match[str]) -> str:
        if spaces.start() == 0 or spaces.end() == len(line):
            return spaces[0]
        before, behind = _box(page_text, start + spaces.start() - 1), _box(page_text, start + spaces.end())
        gap = max(behind.left - before.right, before.left - behind.right)
        return "\t" if gap > WIDE_GAP * height else spaces[0]

    return _SPACES.sub(column, line)


_rect = raw.FS_RECTF()
_rect_at = ctypes.byref(_rect)


def _box(page_text: Any, index: int) -> _Box:
    """Return the box of a character, with the font's ascent and descent."""
    raw.FPDFText_GetLooseCharBox(page_text, index, _rect_at)
    return _Box(_rect.left, _rect.bottom, _rect.right, _rect.top)


class _Hyphens:
    """Decides which hyphens at the end of a line belong to the word, by how the document writes it elsewhere."""

    def __init__(self) -> None:
        self._compounds: set[str] = set()

    def resolved(self, text: str) -> str:
        """Return the text of the next page without marks."""
        if "-" in text:
            self._compounds |= {each.casefold() for each in _COMPOUND.findall(text)}
        return _BROKEN_WORD.sub(self._whole, text) if _HYPHEN in text else text

    def _whole(self, broken: re.Match[str]) -> str:
        first, second = broken.groups()
        compound = f"{first}-{second}"
        usual = first.casefold() in _PREFIXES or compound.casefold() in self._compounds
        return compound if usual or not (first[-1:].isalpha() and second[:1].islower()) else first + second


def _images(page: Any) -> int:
    return _images_in(page, raw.FPDFPage_CountObjects, raw.FPDFPage_GetObject, SCANNED_DEPTH)


def _images_in(parent: Any, count: Any, get: Any, depth: int) -> int:
    found = 0
    for index in range(count(parent)):
        each = get(parent, index)
        kind = raw.FPDFPageObj_GetType(each)
        if kind == raw.FPDF_PAGEOBJ_IMAGE:
            found += 1
        elif kind == raw.FPDF_PAGEOBJ_FORM and depth:
            found += _images_in(each, raw.FPDFFormObj_CountObjects, raw.FPDFFormObj_GetObject, depth - 1)
    return found


def _read_fields(formenv: Any, page: Any, form: Form) -> None:
    """Add the fields on a page to the form."""
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        field = raw.FPDFPage_GetAnnot(page, index)
        try:
            kind = raw.FPDFAnnot_GetFormFieldType(formenv, field)
            if kind > 0 and kind not in (_PUSH_BUTTON, _SIGNATURE):
                form.add(
                    text_of(raw.FPDFAnnot_GetFormFieldName, formenv, field),
                    text_of(raw.FPDFAnnot_GetFormFieldValue, formenv, field),
                )
        finally:
            raw.FPDFPage_CloseAnnot(field)
