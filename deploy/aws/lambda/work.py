"""The work of the function: it makes documents of the pages of a PDF, as a `file_map` says. Put yours here."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePath
from typing import Any, NamedTuple

from pypdf import PdfReader, PdfWriter
from pypdf.errors import PyPdfError


class Permanent(Exception):
    """No other attempt would succeed. The owner of the document reads the text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Part(NamedTuple):
    """A document that was made. Its metadata takes the place of parts of the first document's."""

    name: str
    content: bytes
    metadata: dict[str, Any] | None


def work(content: bytes, params: dict[str, Any], filename: str) -> tuple[dict[str, Any], Iterator[Part]]:
    """The data of the result, and the documents, each made when it is asked for. Raises Permanent."""
    try:
        reader = PdfReader(BytesIO(content))
        if reader.is_encrypted:
            raise Permanent("encrypted-pdf", "The PDF is encrypted.")
        count = len(reader.pages)
    except PyPdfError as error:
        raise Permanent("unreadable-pdf", f"The PDF cannot be read: {type(error).__name__}.") from None
    wanted = params["file_map"] or [{"pages": [page]} for page in range(count)]
    missing = [page for part in wanted for page in part["pages"] if page >= count]
    if missing:
        detail = f"There is no page {missing[0]}: the document has {count}, counted from 0."
        raise Permanent("page-out-of-range", detail)
    return {"page_count": count, "made": len(wanted)}, _parts(reader, wanted, PurePath(filename).stem)


def _parts(reader: PdfReader, wanted: list[dict[str, Any]], stem: str) -> Iterator[Part]:
    for number, part in enumerate(wanted, 1):
        writer, made = PdfWriter(), BytesIO()
        try:
            for page in part["pages"]:
                writer.add_page(reader.pages[page])
            writer.write(made)
        except PyPdfError as error:
            raise Permanent("unreadable-pdf", f"A page cannot be read: {type(error).__name__}.") from None
        yield Part(part.get("name") or f"{stem}_{number}.pdf", made.getvalue(), part.get("metadata"))
