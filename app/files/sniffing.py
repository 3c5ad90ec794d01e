"""Decides what a file is by its structure. Its name and declared type are only claims, and are not used.

The file is untrusted: no size or offset in it is used before it was compared with the actual file.
"""

import os
import re
import struct
from typing import BinaryIO

from app.errors import PolyglotFile, UnsupportedDocument
from app.files import archive
from app.files.archive import ZipEnd, at, zip_end
from app.files.models import ContentType
from app.files.package import check_docx

PDF, DOCX = (each.value for each in ContentType)

HEAD = 1024  # bytes at the beginning in which a document must show its signature
_PDF_TAIL = 2048  # bytes
_PDF_HEADER = b"%PDF-"
_ARCHIVE = b"PK\3\4"
_PDF_END = re.compile(rb"startxref.*%%EOF", re.DOTALL)
_STREAM, _END_OF_STREAM = re.compile(rb"stream\r?\n\Z"), re.compile(rb"\s*endstream\b")
_BLANK = b"\0\t\n\f\r "
_BOM = b"\xef\xbb\xbf"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_DIRECTORY = 4096  # bytes of a compound file's directory that are searched
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
# How other files begin, so that a refusal can say what was sent.
_SIGNS = {
    b"<": "HTML or XML",
    b"#!": "a script",
    b"PK": "a ZIP archive",
    b"MZ": "a program",
    b"\x7fELF": "a program",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"{\\rtf": "an RTF document",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
}


def plausible(head: bytes) -> bool:
    """Return whether a file may be a PDF or DOCX, or one that is refused for a reason of its own.

    `head` is its first HEAD bytes or more, or all of a shorter file.
    """
    return _PDF_HEADER in head[:HEAD] or head.startswith((_ARCHIVE, _OLE))


def unlike(head: bytes) -> UnsupportedDocument:
    """Return the refusal of a file that begins like neither, with what it is if that can be told."""
    found = _sign(head)
    if found == "a ZIP archive":
        return UnsupportedDocument("The ZIP archive has no end: it may have been cut off.")
    if found:
        return UnsupportedDocument(f"The file is {found}.")
    return UnsupportedDocument("The file does not begin as a PDF or a DOCX does." if head else "The file is empty.")


def _sign(head: bytes) -> str | None:
    return next(
        (name for sign, name in _SIGNS.items() if head.removeprefix(_BOM).lstrip(_BLANK).startswith(sign)), None
    )


def sniff(file: BinaryIO) -> str:
    """Return the content type of a complete file, PDF or DOCX. Blocks, and inflates every part of a DOCX.

    Raises UnsupportedDocument, MacrosNotAllowed, ActiveContent, ExternalReference, PolyglotFile or UnsafeArchive, and
    OSError if the disk fails.
    """
    size = file.seek(0, os.SEEK_END)
    head = at(file, 0, HEAD)
    end = zip_end(file, size)
    if _PDF_HEADER in head:
        _check_pdf(file, size, head, end)
        return PDF
    if head.startswith(_OLE):
        _refuse_ole(file, head)
    if end is None:
        raise unlike(head)
    check_docx(file, end, size)
    return DOCX


def sniff_unless_archive(file: BinaryIO) -> str | None:
    """Sniff a file that takes next to no time. Return None for an archive. Raises what `sniff` raises."""
    return None if at(file, 0, 4) == _ARCHIVE else sniff(file)


def _check_pdf(file: BinaryIO, size: int, head: bytes, end: ZipEnd | None) -> None:
    """Raise unless the file begins and ends as a PDF, and as nothing else (ISO 32000-2 §7.5.2, §7.5.5).

    White space around it, and some bytes behind it, are common and harmless: viewers pass over them.
    """
    before = head[: head.index(_PDF_HEADER)].removeprefix(_BOM).lstrip(_BLANK)
    if before:
        found = _sign(before) or "something else"
        raise PolyglotFile(f"{found[0].upper()}{found[1:]} stands before the header of the PDF.")
    if end and not _is_stream(file, end):
        raise PolyglotFile("The file is a PDF and a ZIP archive.")
    written = archive.end_of_text(file, size, _BLANK)
    tail = at(file, written - _PDF_TAIL, min(written, _PDF_TAIL))
    if _PDF_END.search(tail):
        return
    if b"%%EOF" in tail:
        raise UnsupportedDocument("The PDF has no startxref before its %%EOF: it may have been cut off.")
    if archive.last(file, size, b"%%EOF") is not None:
        raise UnsupportedDocument("Something else follows the end of the PDF, which is marked by %%EOF.")
    raise UnsupportedDocument("The PDF does not end with %%EOF: it may have been cut off.")


def _is_stream(file: BinaryIO, end: ZipEnd) -> bool:
    """Return whether a whole ZIP archive is the content of a stream, such as an attachment that is not compressed."""
    behind = end.position + 22 + end.comment
    before = at(file, end.start - 10, min(10, max(0, end.start)))
    return bool(_STREAM.search(before) and _END_OF_STREAM.match(at(file, behind, 20)))


def _refuse_ole(file: BinaryIO, head: bytes) -> None:
    """Raise with what a compound file is, by its directory ([MS-CFB] §2.2 and §2.6, [MS-OFFCRYPTO] §2.3.4)."""
    shift, first = struct.unpack_from("<30xH16xL", head.ljust(52, b"\0"))
    if _ENCRYPTED in at(file, (first + 1) << min(shift, 12), _OLE_DIRECTORY):
        raise UnsupportedDocument("The document is protected with a password.")
    raise UnsupportedDocument("The file is in the format of Word before 2007, or of another program. Save it as DOCX.")
