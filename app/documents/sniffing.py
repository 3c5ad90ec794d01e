"""What a file is, decided by its structure; its name and its declared type are claims that nobody checks.

PDF: ISO 32000-1, read as leniently as PDF Reference 1.7, Appendix H says. DOCX: ECMA-376 Part 2 in a ZIP (APPNOTE.TXT).
The file is untrusted: no size or offset in it is followed before it was compared with what is really there.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from app.errors import MacrosNotAllowed, PolyglotFile, UnsafeArchive, UnsupportedDocument

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

MAX_ENTRIES = 1000
MAX_LISTING = 1024 * 1024  # of the directory, and of the content types
MAX_PROLOG = 64 * 1024
MAX_INFLATED = 200_000_000
MAX_RATIO, RATIO_FREE = 50, 64 * 1024 * 1024  # the ratio is of no concern up to this size
_HEAD = 1024
_PDF_TAIL = 2048
_ZIP_TAIL = 22 + 0xFFFF  # an end record, and the longest comment that may follow it
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
    """The end of central directory record (APPNOTE 4.3.16): where it stands, and where it says the directory is."""

    position: int
    entries: int
    directory_size: int
    directory_offset: int

    def spans(self, size: int) -> bool:
        """Whether the archive is all there is in a file of `size` bytes: nothing before it, no comment behind it."""
        return self.directory_offset + self.directory_size == self.position and self.position + 22 == size


class _RootReached(Exception):
    """Stops the XML parser: a document type definition can only stand before the root element."""


def plausible(head: bytes) -> bool:
    """Whether a file can still turn out to be a PDF or DOCX. `head` is its first 1 KiB or more, or all of it."""
    return b"%PDF-" in head[:_HEAD] or head.startswith(b"PK\3\4")


def sniff(file: BinaryIO) -> str:
    """The content type of a complete file: PDF or DOCX. Blocks, and inflates every part of a DOCX once.

    Raises UnsupportedDocument, MacrosNotAllowed, PolyglotFile or UnsafeArchive, and OSError if the disk fails.
    """
    size = file.seek(0, os.SEEK_END)
    head = _at(file, 0, _HEAD)
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
    """Up to `length` bytes from `position`, or from the beginning if that is later."""
    file.seek(max(0, position))
    return file.read(length)


def _zip_end(file: BinaryIO, size: int) -> _ZipEnd | None:
    """The last end record in reach of a ZIP reader. Its signature alone is chance: it has its directory before it."""
    tail = _at(file, size - _ZIP_TAIL, _ZIP_TAIL)
    found = max(0, len(tail) - 18)  # not by a regular expression, which takes 50 times as long: 0.9 ms a file
    while (found := tail.rfind(_ZIP_END, 0, found)) >= 0:
        entries, directory_size, directory_offset = struct.unpack_from("<10xH2L", tail, found)
        position = size - len(tail) + found
        if _at(file, position - directory_size, 4) in (b"PK\1\2", _ZIP_END):  # the latter if it is empty
            return _ZipEnd(position, entries, directory_size, directory_offset)
    return None


def _check_docx(file: BinaryIO, end: _ZipEnd, size: int) -> None:
    """Raises unless the archive that spans the file is a safe DOCX without macros."""
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
    """The entries by name, in lower case: the names of a package are the same in any case."""
    entries = archive.infolist()
    names = [entry.orig_filename for entry in entries]  # `filename` ends at the first NUL
    parts = {name.rstrip("/").casefold(): entry for name, entry in zip(names, entries, strict=True)}
    if len(parts) < len(names) or any(map(_UNSAFE_NAME.search, names)):
        raise UnsafeArchive("The archive has unsafe or duplicate entry names.")
    offsets = [entry.header_offset for entry in entries]
    if min(offsets, default=0) > 0:
        raise PolyglotFile("There is data before the first entry of the ZIP archive.")
    if len(entries) != end.entries or max(offsets, default=0) >= end.directory_offset:
        raise BadZipFile
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
        raise BadZipFile  # a package has no others, and zipfile inflates those without a bound
    return parts


def _types(archive: ZipFile, parts: Mapping[str, ZipInfo]) -> dict[str, str]:
    """The content type of every part, in lower case: its own, or else its extension's, or else none ("")."""
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
    """The first `keep` bytes of a part, once its whole size and CRC are found to be as declared."""
    declared = part.file_size
    part.file_size = MAX_INFLATED + 1  # where zipfile stops reading: at the declared size it would not see a lie
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
    """Raises unless an XML part that begins with `start` gets to its root element, and without a type definition."""

    def stop(_element: str, _attributes: Mapping[str, str]) -> None:
        raise _RootReached

    try:
        _parse(start, stop, final=False)
    except _RootReached:
        return
    raise UnsupportedDocument("An XML part of the DOCX does not get to its root element.")


def _parse(xml: bytes, on_element: Callable[[str, dict[str, str]], None], *, final: bool) -> None:
    """Raises what `on_element` raises, ExpatError, and errors for what packages forbid: definitions, odd encodings."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = _check_encoding
    parser.StartDoctypeDeclHandler = _refuse_definition
    parser.StartElementHandler = on_element
    parser.Parse(xml, final)


def _check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
    if (encoding or "utf-8").lower() not in ("utf-8", "utf-16"):  # in others, readers disagree on what a `<` is
        raise UnsupportedDocument("A part of the DOCX is neither UTF-8 nor UTF-16.")


def _refuse_definition(*_: object) -> None:
    raise UnsafeArchive("A part of the DOCX has a document type definition.")
