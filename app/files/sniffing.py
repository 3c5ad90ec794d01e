"""Decides what a file is by its structure. Its name and declared type are only claims, and are not used.

PDF: ISO 32000-1, read as leniently as Appendix H of PDF Reference 1.7 recommends. DOCX: ECMA-376 Part 2, in a ZIP
(APPNOTE.TXT). The file is untrusted: no size or offset in it is used before it was compared with the actual file.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, get_args
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from app.errors import MacrosNotAllowed, PolyglotFile, UnsafeArchive, UnsupportedDocument
from app.files.models import ContentType

PDF: str
DOCX: str
PDF, DOCX = get_args(ContentType)

HEAD = 1024  # bytes at the beginning in which a document must show its signature
MAX_ENTRIES = 1000
MAX_LISTING = 1024 * 1024  # bytes of the archive's directory, and of the list of content types
MAX_PROLOG = 64 * 1024  # bytes before the root element of an XML part
MAX_INFLATED = 200_000_000  # bytes
MAX_RATIO, RATIO_FREE = (
    50,
    64 * 1024 * 1024,
)  # inflated bytes to compressed ones; the limit begins above RATIO_FREE bytes
_PDF_TAIL = 2048  # bytes
_ZIP_TAIL = 22 + 0xFFFF  # bytes of an end record and of the longest comment that may follow it
_PDF_END = re.compile(rb"startxref.*%%EOF", re.DOTALL)
_ZIP_END = b"PK\5\6"
_FOREIGN = (b"PK", b"<", b"#!", b"MZ", b"\x7fELF", b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"\xd0\xcf\x11\xe0")
_UNSAFE_NAME = re.compile(r"^$|^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
_MACRO = re.compile(r"macroenabled|vbaproject|vbadata")
_XML = re.compile(r"\.xml$|\.rels$|[+/]xml\b")
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_TYPE_KEYS = {f"{_TYPES} Override": "PartName", f"{_TYPES} Default": "Extension"}
_MAIN = {f"{DOCX}.main+xml", "application/vnd.ms-word.document.macroenabled.main+xml"}
_BROKEN = (BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, expat.ExpatError)


@dataclass(frozen=True, slots=True)
class _ZipEnd:
    """The end of central directory record (APPNOTE 4.3.16): its position, and where it says that the directory is."""

    position: int
    entries: int
    directory_size: int
    directory_offset: int

    def spans(self, size: int) -> bool:
        """Return whether the archive fills a file of `size` bytes: nothing precedes it, and no comment follows."""
        return self.directory_offset + self.directory_size == self.position and self.position + 22 == size


class _RootReached(Exception):
    """Stops the XML parser: a document type definition can only stand before the root element."""


def plausible(head: bytes) -> bool:
    """Return whether a file may be a PDF or DOCX. `head` is its first HEAD bytes or more, or all of a shorter file."""
    return b"%PDF-" in head[:HEAD] or head.startswith(b"PK\3\4")


def sniff(file: BinaryIO) -> str:
    """Return the content type of a complete file, PDF or DOCX. Blocks, and inflates every part of a DOCX once.

    Raises UnsupportedDocument, MacrosNotAllowed, PolyglotFile or UnsafeArchive, and OSError if the disk fails.
    """
    size = file.seek(0, os.SEEK_END)
    head = _at(file, 0, HEAD)
    end = _zip_end(file, size)
    if b"%PDF-" in head:
        if end or head.lstrip().startswith(_FOREIGN):
            raise PolyglotFile("The file is a PDF and something else.")
        if not _PDF_END.search(_at(file, size - _PDF_TAIL, _PDF_TAIL)):
            raise UnsupportedDocument("The PDF is cut off: it does not end with startxref and %%EOF.")
        return PDF
    if end is None:
        raise UnsupportedDocument
    if not end.spans(size):
        raise PolyglotFile("There is data before or behind the ZIP archive.")
    _check_docx(file, end, size)
    return DOCX


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    """Return up to `length` bytes from `position`, or from the beginning if it is negative."""
    file.seek(max(0, position))
    return file.read(length)


def _zip_end(file: BinaryIO, size: int) -> _ZipEnd | None:
    """Return the last end record that a ZIP reader would find, or None.

    Its four-byte signature may occur by chance, so the directory must lie where the record says.
    """
    tail = _at(file, size - _ZIP_TAIL, _ZIP_TAIL)
    found = max(0, len(tail) - 18)  # a regular expression takes 50 times as long, 0.9 ms a file
    while (found := tail.rfind(_ZIP_END, 0, found)) >= 0:
        entries, directory_size, directory_offset = struct.unpack_from("<10xH2L", tail, found)
        position = size - len(tail) + found
        if _at(file, position - directory_size, 4) in (b"PK\1\2", _ZIP_END):  # the second one if the directory is empty
            return _ZipEnd(position, entries, directory_size, directory_offset)
    return None


def _check_docx(file: BinaryIO, end: _ZipEnd, size: int) -> None:
    """Raise unless the archive is a safe DOCX without macros."""
    if end.entries > MAX_ENTRIES or end.directory_size > MAX_LISTING:
        raise UnsafeArchive(f"The archive has more than {MAX_ENTRIES} entries or an oversized directory.")
    if _at(file, end.position - 20, 4) == b"PK\6\7":
        raise UnsupportedDocument("The archive is a ZIP64, which no DOCX within the limits needs.")
    with _broken_is_unsupported(), ZipFile(file) as archive:
        parts = _parts(archive, end)
        if sum(part.file_size for part in parts.values()) > min(MAX_INFLATED, max(RATIO_FREE, MAX_RATIO * size)):
            raise UnsafeArchive("The archive inflates beyond the limits.")
        types = _types(archive, parts)
        _check_kind(types)
        for name, part in parts.items():
            start = _inflate(archive, part, MAX_PROLOG)
            if _XML.search(name) or _XML.search(types[name]):
                _check_prolog(start)


@contextmanager
def _broken_is_unsupported() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        if isinstance(error.__context__, OSError):  # zipfile calls a failing disk a bad archive
            raise error.__context__ from None
        raise UnsupportedDocument("The ZIP archive is damaged, encrypted or not made as a DOCX is.") from error


def _parts(archive: ZipFile, end: _ZipEnd) -> dict[str, ZipInfo]:
    """Return the entries by name in lower case: part names are compared without regard to case."""
    entries = archive.infolist()
    names = [entry.orig_filename for entry in entries]  # `filename` is cut off at the first NUL
    parts = {name.rstrip("/").casefold(): entry for name, entry in zip(names, entries, strict=True)}
    if len(parts) < len(names) or any(map(_UNSAFE_NAME.search, names)):
        raise UnsafeArchive("The archive has unsafe or duplicate entry names.")
    offsets = [entry.header_offset for entry in entries]
    if min(offsets, default=0) > 0:
        raise PolyglotFile("There is data before the first entry of the ZIP archive.")
    if len(entries) != end.entries or max(offsets, default=0) >= end.directory_offset:
        raise BadZipFile
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
        raise BadZipFile  # a package has no other compression, and zipfile inflates others without a bound
    return parts


def _types(archive: ZipFile, parts: Mapping[str, ZipInfo]) -> dict[str, str]:
    """Return the content type of every part in lower case: its own, else its extension's, else ""."""
    stream = parts.get("[content_types].xml")
    if stream is None:
        raise UnsupportedDocument
    if stream.file_size > MAX_LISTING:
        raise UnsafeArchive("The list of content types is oversized.")
    declared: dict[str, str] = {}

    def collect(element: str, attributes: Mapping[str, str]) -> None:
        if key := attributes.get(_TYPE_KEYS.get(element, ""), "").casefold():
            if key in declared:
                raise UnsupportedDocument("The list of content types contradicts itself.")
            declared[key] = attributes.get("ContentType", "").strip().casefold()

    _parse(_inflate(archive, stream, MAX_LISTING), collect, final=True)
    return {name: declared.get(f"/{name}") or declared.get(name.rpartition(".")[2], "") for name in parts}


def _check_kind(types: Mapping[str, str]) -> None:
    if not _MAIN & set(types.values()):
        raise UnsupportedDocument("The ZIP archive is not a DOCX: it holds no main part of a Word document.")
    if any(_MACRO.search(name) or _MACRO.search(content_type) for name, content_type in types.items()):
        raise MacrosNotAllowed


def _inflate(archive: ZipFile, part: ZipInfo, keep: int) -> bytes:
    """Return the first `keep` bytes of a part, after checking that its size and CRC are as declared."""
    declared = part.file_size
    part.file_size = MAX_INFLATED + 1  # zipfile stops reading here; at the declared size it would miss excess data
    with archive.open(part) as stream:
        start = stream.read(keep)
        inflated = len(start)
        while inflated <= declared and (chunk := stream.read(256 * 1024)):
            inflated += len(chunk)
    part.file_size = declared
    if inflated != declared:
        raise UnsafeArchive("An entry of the archive is not of the size that the directory declares.")
    return start


def _check_prolog(start: bytes) -> None:
    """Raise unless an XML part that begins with `start` reaches its root element without a type definition."""

    def stop(_element: str, _attributes: Mapping[str, str]) -> None:
        raise _RootReached

    try:
        _parse(start, stop, final=False)
    except _RootReached:
        return
    raise UnsupportedDocument("An XML part of the DOCX does not get to its root element.")


def _parse(xml: bytes, on_element: Callable[[str, dict[str, str]], None], *, final: bool) -> None:
    """Parse XML. Raises what `on_element` raises, ExpatError, and UnsafeArchive or UnsupportedDocument for type
    definitions and encodings that packages forbid."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = _check_encoding
    parser.StartDoctypeDeclHandler = _refuse_definition
    parser.StartElementHandler = on_element
    parser.Parse(xml, final)


def _check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
    if (encoding or "utf-8").lower() not in (
        "utf-8",
        "utf-16",
    ):  # in other encodings, readers disagree about which bytes are `<`
        raise UnsupportedDocument("A part of the DOCX is neither UTF-8 nor UTF-16.")


def _refuse_definition(*_: object) -> None:
    raise UnsafeArchive("A part of the DOCX has a document type definition.")
