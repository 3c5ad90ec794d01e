"""What a PDF states about itself: PDFium reads the dictionary of old, pikepdf finds XMP."""

import ctypes
import re
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from typing import Any, BinaryIO

from pypdfium2 import raw

from app.processors.text.output import language_tag, tidy

_BLOCK = 1024 * 1024
_XML_STREAM = re.compile(rb"/Subtype\s*/XML")
_XMP = {
    "title": "title",
    "creator": "author",
    "description": "subject",
    "Keywords": "keywords",
    "CreatorTool": "creator",
    "Producer": "producer",
    "CreateDate": "created",
    "ModifyDate": "modified",
}


def text_of(get: Any, *arguments: Any) -> str:
    """Return a text that PDFium writes into a buffer, in UTF-16 with a NUL behind."""
    size = get(*arguments, None, 0)
    buffer = ctypes.create_string_buffer(size)
    get(*arguments, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: max(0, size - 2)].decode("utf-16-le", "replace")


def language(pdf: Any) -> str | None:
    """The language that the document states (ISO 32000-2 §14.9.2)."""
    return language_tag(text_of(raw.FPDFCatalog_GetLanguage, pdf))


def metadata(pdf: Any, file: BinaryIO) -> dict[str, str]:
    """What the document states about itself, by the names of METADATA; XMP tells what the older dictionary does not."""
    names = {"created": "CreationDate", "modified": "ModDate"}
    found = tidy(lambda name: pdf.get_metadata_value(names.get(name, name.title())), pdf_date)
    if {"title", "author"} <= found.keys() or not _may_have_xmp(file):
        return found
    return tidy(_xmp(file).get, datetime.fromisoformat) | found


def _may_have_xmp(file: BinaryIO) -> bool:
    """Whether there is a stream of XML: its dictionary is never compressed."""
    file.seek(0)
    end = b""
    while block := file.read(_BLOCK):
        if _XML_STREAM.search(end + block):
            return True
        end = block[-32:]
    return False


def _xmp(file: BinaryIO) -> dict[str, str]:
    """The document's XMP (ISO 32000-2 §14.3.2), by the names of METADATA."""
    etree = import_module("lxml.etree")
    pikepdf = import_module("pikepdf")
    file.seek(0)
    try:
        with pikepdf.open(file) as pdf:
            stream = bytes(pdf.Root.Metadata.read_bytes())
        root = etree.fromstring(stream, etree.XMLParser(resolve_entities=False))
    except (pikepdf.PdfError, pikepdf.PasswordError, AttributeError, TypeError, ValueError, etree.XMLSyntaxError):
        return {}
    found: dict[str, str] = {}
    for each in root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"):
        attributes = {key.rpartition("}")[2]: value for key, value in each.attrib.items()}
        elements = {child.tag.rpartition("}")[2]: "; ".join(_said(child)) for child in each.iterchildren("*")}
        found |= {_XMP[name]: value for name, value in (attributes | elements).items() if name in _XMP}
    return found


def _said(element: Any) -> Iterator[str]:
    return (text.strip() for text in element.itertext() if text.strip())


def pdf_date(value: str) -> datetime:
    """Parse a date such as `D:20240131120000+02'00'` (ISO 32000-2 §7.9.4). Raises ValueError.

    Only the year is required, and a date without a zone is in UTC.
    """
    match = re.match(r"(?:D:)?(\d{4,14})(?:([+-]\d\d)'?(\d\d)?)?", value)
    if match is None:
        raise ValueError("not a PDF date")
    digits, hours, minutes = match.groups()
    whole = digits + "0101000000"[len(digits) - 4 :]
    return datetime.strptime(whole + (hours or "+00") + (minutes or "00"), "%Y%m%d%H%M%S%z")
