"""Makes PDFs of the pages of others, in a `ConfinedChild`: to copy pages is to parse them.

The document is standard input. Output is JSON lines: `{"progress": 0.5}` now and then, the files, and `{"result": {…}}`
of the model `Split` or `Merged`, or `{"error": code}` at the end.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import pikepdf

from app.processors.sandbox.output import HandedFile, emit

_NO_MEMORY = "out-of-memory"
_LARGE = 64 * 1024**2  # bytes
_WITH_PAGES = {
    "/AcroForm",
    "/Dests",
    "/Names",
    "/OCProperties",
    "/Outlines",
}  # of a catalog: what belongs to pages, too


def main(task: Mapping[str, Any]) -> None:
    """Print the result of the task, that of `split` or `merge` with its arguments."""
    work = split if task["work"] == "split" else merge
    try:
        emit({"result": work(sys.stdin.buffer, *task["arguments"])})
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        emit({"error": _code(error)})


def split(
    file: BinaryIO,
    file_map: Sequence[Sequence[int]] | None,
    ranges: Sequence[tuple[int, int | None]] | None,
    every: int,
    most: int,
) -> dict[str, Any]:
    """Hand over a PDF for each item of the file map, whose pages are counted from 0, or for each range, whose pages are
    counted from 1, or for `every` so many pages.

    No PDF is made if there would be more than `most`, or if a page is `missing`, which is counted from 0.
    """
    with _opened(file) as pdf:
        parts = _parts(len(pdf.pages), file_map, ranges, every)
        missing = next((page for part in parts for page in part if page >= len(pdf.pages)), None)
        result = {"page_count": len(pdf.pages), "children": len(parts), "missing": missing}
        if missing is not None or len(parts) > most:
            return result | {"signature_dropped": False}
        signed = _remove_signatures(pdf)
        pdf.remove_unreferenced_resources()  # or each child has all that any page needs
        for number, part in enumerate(parts, 1):
            with pikepdf.new() as made:
                _add(made, pdf, part)
                _hand_over(made, {"pages": list(part), "of": len(parts)})
            _tell_progress(number, len(parts))
        return result | {"signature_dropped": signed}


def merge(file: BinaryIO, others: Sequence[str]) -> dict[str, Any]:
    """Hand over a PDF of all pages of a document and others, which are at these paths.

    It is not made if one of them is `refused`, which is its number, counted from 1, and the code of an error.
    """
    signed = False
    sources: list[BinaryIO | str] = [file, *others]
    with pikepdf.new() as made:
        for number, source in enumerate(sources, 1):
            try:
                with _opened(source) as pdf:
                    signed |= _remove_signatures(pdf)
                    _add(made, pdf, range(len(pdf.pages)))
            except Exception as error:
                code = _code(error)
                if code == _NO_MEMORY:  # which has gone to all of them
                    raise
                refused = {"document": number, "code": code}
                return {"page_count": 0, "signature_dropped": False, "refused": refused}
            _tell_progress(number, len(sources) + 1)
        count = len(made.pages)
        _hand_over(made, {"pages": [], "of": 1})
    return {"page_count": count, "signature_dropped": signed, "refused": None}


def _opened(file: BinaryIO | str) -> pikepdf.Pdf:
    """Open a PDF. Raises what pikepdf raises, and ValueError for one that has no pages."""
    pdf = pikepdf.open(file)
    if not pdf.pages:
        raise ValueError("no pages")
    return pdf


def _parts(
    count: int,
    file_map: Sequence[Sequence[int]] | None,
    ranges: Sequence[tuple[int, int | None]] | None,
    every: int,
) -> Sequence[Sequence[int]]:
    """Return the pages of each PDF, counted from 0. A range without an end has at least its first."""
    if file_map is not None:
        return file_map
    if ranges is not None:
        return [_pages(first, last or max(first, count)) for first, last in ranges]
    return [range(first, min(first + every, count)) for first in range(0, count, every)]


def _pages(first: int, last: int) -> Sequence[int]:
    """Return what a range that is counted from 1 has, counted from 0. It may go backwards."""
    return range(first - 1, last) if first <= last else range(first - 1, last - 2, -1)


def _remove_signatures(pdf: pikepdf.Pdf) -> bool:
    """Remove the values of signature fields, which would not be those of what is made. Returns whether there were any.

    What they look like on their pages stays.
    """
    if "/AcroForm" not in pdf.Root:
        return False
    fields = [each for each in pdf.objects if isinstance(each, pikepdf.Dictionary) and each.get("/FT") == "/Sig"]
    signed = [each for each in fields if "/V" in each]
    for field in signed:
        del field["/V"]
    return bool(signed)


def _add(made: pikepdf.Pdf, source: pikepdf.Pdf, pages: Sequence[int]) -> None:
    """Append pages of a source, with the form fields, the layers and the targets of links that belong to them."""
    if _WITH_PAGES.isdisjoint(source.Root.keys()):
        for page in pages:
            made.pages.append(source.pages[page])
    else:  # takes 30 times as long, for a source of 1000 pages
        made.add_pages_from(source, pages)


def _hand_over(made: pikepdf.Pdf, told: Mapping[str, Any]) -> None:
    file = HandedFile(told)
    # Streams stay as they are: to inflate and deflate them takes 30 times as long.
    made.save(
        file,  # type: ignore[arg-type]
        stream_decode_level=pikepdf.StreamDecodeLevel.none,
        compress_streams=False,
        object_stream_mode=pikepdf.ObjectStreamMode.generate,
        deterministic_id=True,
    )
    file.end()


def _tell_progress(done: int, of: int) -> None:
    if done * 100 // of != (done - 1) * 100 // of:
        emit({"progress": done / of})


def _is_short_of_memory() -> bool:
    """Whether there is not enough memory for a large stream: then pikepdf says that it cannot be read."""
    try:
        bytearray(_LARGE)
    except MemoryError:
        return True
    return False


def _code(error: Exception) -> str:
    """Return the code, known to the parent, for what was raised."""
    if isinstance(error, MemoryError) or _is_short_of_memory():
        return _NO_MEMORY
    if isinstance(error, pikepdf.PasswordError):
        return "password-protected"
    return "unsupported-encryption" if "encryption" in str(error) else "malformed-document"
