"""What makes a ZIP archive a DOCX that is safe to hand on (ECMA-376 Part 2, and Part 1 §11)."""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from posixpath import dirname, join, normpath
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from app.errors import (
    ActiveContent,
    ExternalReference,
    MacrosNotAllowed,
    PolyglotFile,
    UnsafeArchive,
    UnsupportedDocument,
)
from app.files import fields
from app.files.archive import ZipEnd, at, inflated, zip_end
from app.files.xml_parts import check_prolog, parse

MAX_ENTRIES = 10_000
MAX_INFLATED = 200_000_000  # bytes, or as many as the file itself has
MAX_LISTING = 4 * 1024 * 1024  # bytes of the archive's directory, of the list of content types, and of relationships
MAX_RATIO = 50  # inflated bytes to compressed ones …
RATIO_FREE = 16 * 1024 * 1024  # … beyond this many
MAX_FIELDS = 32 * 1024 * 1024  # bytes of all parts that have field codes
MAX_INCLUDED = 32 * 1024 * 1024  # bytes of a document within the document
_MAX_BLANK = 1024  # bytes behind the archive

_UNSAFE_NAME = re.compile(r"^$|^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
_OTHER_FORMATS = {  # by an entry that makes the archive one of these
    "meta-inf/manifest.mf": "a Java archive",
    "classes.dex": "an Android package",
    "androidmanifest.xml": "an Android package",
    "meta-inf/container.xml": "an EPUB",
    "meta-inf/manifest.xml": "an OpenDocument",
    "install.rdf": "a browser extension",
}
_XML = re.compile(r"\.xml$|\.rels$|[+/]xml\b")
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_TYPE_KEYS = {f"{_TYPES} Override": "PartName", f"{_TYPES} Default": "Extension"}
_RELATIONSHIP = "http://schemas.openxmlformats.org/package/2006/relationships Relationship"
_MAIN = {  # Transitional and Strict
    "http://schemas.openxmlformats.org/officedocument/2006/relationships/officedocument",
    "http://purl.oclc.org/ooxml/officedocument/relationships/officedocument",
}
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml."
_DOCUMENT = f"{_WORD}document.main+xml"
_OTHER_MAIN = {
    f"{_WORD}template.main+xml": "a template",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.": "a workbook",
    "application/vnd.openxmlformats-officedocument.presentationml.": "a presentation",
}
_MACRO = re.compile(r"vbaproject|vbadata|(?<!binary\.)macroenabled")  # an XLSB is called so whether or not it has any
_ACTIVE_TYPE = re.compile(r"\.oleobject$|\.activex\b")
_ACTIVE = {"oleobject": "an OLE object", "control": "a control", "activexcontrolbinary": "a control"}
# What may lie elsewhere: it is shown or followed, and neither included nor run.
_LINKED = {"hyperlink", "image", "video", "audio", "media", "mailmergesource", "mailmergeheadersource"}
_LOCAL = re.compile(r"file:///(?!/)|[a-z]:/|(?!//)(?![a-z][a-z0-9+.-]+:)")  # on the reader's own disk
_BROKEN = (BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, expat.ExpatError)


class _Relationship(NamedTuple):
    """An entry of a `.rels` part. Type and target are in lower case."""

    source: str
    type: str
    target: str
    external: bool

    @property
    def kind(self) -> str:
        return self.type.rpartition("/")[2]

    @property
    def part(self) -> str:
        """The name of the part that the target is (ECMA-376-2 §8.3)."""
        return normpath(join("/", dirname(self.source), unquote(self.target))).lstrip("/")


def check_docx(file: BinaryIO, end: ZipEnd, size: int, *, included: bool = False) -> None:
    """Raise unless the archive is a DOCX and nothing else, without macros, active content or what lies elsewhere.

    Documents that it includes must be so, too, and those are `included`: they may include no further ones.

    Raises UnsupportedDocument, MacrosNotAllowed, ActiveContent, ExternalReference, PolyglotFile or UnsafeArchive, and
    OSError if the disk fails.
    """
    _check_ends(file, end, size)
    with _broken_is_unsupported(), ZipFile(file) as archive:
        parts = _parts(archive, end)
        most = max(MAX_INFLATED, size)
        if sum(part.file_size for part in parts.values()) > min(most, max(RATIO_FREE, MAX_RATIO * size)):
            raise UnsafeArchive("The archive inflates beyond the limits.")
        types = _types(archive, parts)
        related = [each for name in parts if name.endswith(".rels") for each in _relationships(archive, parts, name)]
        _check_main(related, types)
        _check_macros(related, types, parts)
        _check_active(related, types, parts)
        _check_contents(archive, parts, types)
        chunks = {each.part for each in related if each.kind == "afchunk"} & parts.keys()
        if chunks and included:
            raise ActiveContent("A document that is included includes another.")
        for name in chunks:
            _check_included(archive, parts[name])


def _check_ends(file: BinaryIO, end: ZipEnd, size: int) -> None:
    """Raise unless the archive fills the file: nothing precedes it, and only its comment and blanks follow."""
    if end.entries > MAX_ENTRIES or end.directory_size > MAX_LISTING:
        raise UnsafeArchive(f"The archive has more than {MAX_ENTRIES} entries or an oversized directory.")
    if at(file, end.position - 20, 4) == b"PK\6\7":
        raise UnsupportedDocument("The archive is a ZIP64, which no DOCX within the limits needs.")
    if end.start != 0:
        raise PolyglotFile("There is data before the ZIP archive.")
    behind = end.position + 22 + end.comment
    if behind > size:
        raise UnsupportedDocument("The ZIP archive is cut off.")
    if size - behind > _MAX_BLANK or at(file, behind, _MAX_BLANK).strip(b"\0\t\n\f\r "):
        raise PolyglotFile("There is data behind the ZIP archive.")


@contextmanager
def _broken_is_unsupported() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        if isinstance(error.__context__, OSError):  # zipfile calls a failing disk a bad archive
            raise error.__context__ from None
        malformed = isinstance(error, expat.ExpatError)
        reason = "A part of the DOCX is not well-formed XML." if malformed else "The ZIP archive is damaged."
        raise UnsupportedDocument(reason) from error


def _parts(archive: ZipFile, end: ZipEnd) -> dict[str, ZipInfo]:
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
    if any(entry.flag_bits & 1 for entry in entries):
        raise UnsupportedDocument("The ZIP archive is encrypted with a password.")
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):  # zipfile has no bound there
        raise UnsupportedDocument("The ZIP archive is compressed in a way that no DOCX is.")
    if other := next((_OTHER_FORMATS[name] for name in parts if name in _OTHER_FORMATS), None):
        raise PolyglotFile(f"The archive is {other} as well.")
    return parts


def _types(archive: ZipFile, parts: Mapping[str, ZipInfo]) -> dict[str, str]:
    """Return the content type of every part in lower case: its own, else its extension's, else ""."""
    declared: dict[str, str] = {}

    def collect(element: str, attributes: Mapping[str, str]) -> None:
        if key := attributes.get(_TYPE_KEYS.get(element, ""), "").casefold():
            if key in declared:
                raise UnsupportedDocument("The list of content types contradicts itself.")
            declared[key] = attributes.get("ContentType", "").strip().casefold()

    _parse_listing(archive, parts, "[content_types].xml", collect)
    return {name: declared.get(f"/{name}") or declared.get(name.rpartition(".")[2], "") for name in parts}


def _relationships(archive: ZipFile, parts: Mapping[str, ZipInfo], name: str) -> list[_Relationship]:
    """Return what a part, or the package, is related to (ECMA-376-2 §6.5)."""
    found: list[_Relationship] = []
    folder, _, rest = name.rpartition("_rels/")

    def collect(element: str, attributes: Mapping[str, str]) -> None:
        if element == _RELATIONSHIP:
            external = attributes.get("TargetMode", "").strip().casefold() == "external"
            kind, target = (attributes.get(each, "").strip().casefold() for each in ("Type", "Target"))
            found.append(_Relationship(folder + rest.removesuffix(".rels"), kind, target, external))

    _parse_listing(archive, parts, name, collect)
    return found


def _parse_listing(
    archive: ZipFile, parts: Mapping[str, ZipInfo], name: str, collect: Callable[[str, Mapping[str, str]], None]
) -> None:
    part = parts.get(name)
    if part is None:
        raise UnsupportedDocument("The ZIP archive is not a DOCX: it has no list of content types.")
    if part.file_size > MAX_LISTING:
        raise UnsafeArchive("The list of content types, or one of relationships, is oversized.")
    parse(b"".join(inflated(archive, part)), collect, final=True)


def _check_main(related: list[_Relationship], types: Mapping[str, str]) -> None:
    """Raise unless the package leads to one main part, and that is a Word document's."""
    mains = [each for each in related if not each.source and each.type in _MAIN and not each.external]
    if len(mains) != 1:
        raise UnsupportedDocument("The ZIP archive is not a DOCX: it does not lead to one main part.")
    kind = types.get(mains[0].part, "")
    if kind == _DOCUMENT:
        return
    if _MACRO.search(kind):
        raise MacrosNotAllowed("The document is of a kind that has macros (DOCM or DOTM).")
    other = next((name for beginning, name in _OTHER_MAIN.items() if kind.startswith(beginning)), None)
    found = f"it is {other}" if other else "its main part is not that of a Word document"
    raise UnsupportedDocument(f"The ZIP archive is not a DOCX: {found}.")


def _check_macros(related: list[_Relationship], types: Mapping[str, str], parts: Mapping[str, ZipInfo]) -> None:
    for name, kind in types.items():
        if _MACRO.search(name) or _MACRO.search(kind):
            raise MacrosNotAllowed(f"There are macros in the part {_shown(parts[name].orig_filename)}.")
    if macros := next((each for each in related if _MACRO.search(each.kind)), None):
        raise MacrosNotAllowed(f"There are macros in the part {_shown(macros.target)}.")


def _check_active(related: list[_Relationship], types: Mapping[str, str], parts: Mapping[str, ZipInfo]) -> None:
    """Raise if there is what is run, or included from elsewhere, when the document is opened."""
    if active := next((name for name, kind in types.items() if _ACTIVE_TYPE.search(kind)), None):
        raise ActiveContent(f"The part {_shown(parts[active].orig_filename)} is an OLE object or a control.")
    for each in related:
        if what := _ACTIVE.get(each.kind):
            raise ActiveContent(f"The document holds {what}.")
        if each.kind == "afchunk" and not each.external and types.get(each.part) != _DOCUMENT:
            raise ActiveContent("The document includes a text of another format, which could hold anything.")
        # Word names a document's own template by its path on the author's disk.
        is_local = each.kind == "attachedtemplate" and _LOCAL.match(unquote(each.target).replace("\\", "/"))
        if each.external and each.kind not in _LINKED and not is_local:
            raise ExternalReference(f"The document includes something from elsewhere ({_shown(each.kind)}).")


def _check_included(archive: ZipFile, part: ZipInfo) -> None:
    """Check a document that Word puts in the place of a reference. What is no archive was checked as XML."""
    if part.file_size > MAX_INCLUDED:
        raise UnsafeArchive("A document that is included is oversized.")
    file = BytesIO(b"".join(inflated(archive, part)))
    if file.read(2) == b"PK":  # what `_check_xml` passes over
        end = zip_end(file, part.file_size)
        if end is None:
            raise BadZipFile
        check_docx(file, end, part.file_size, included=True)


def _shown(name: str) -> str:
    """Return a part's name, or a word of the file, as an answer may show it."""
    return re.sub(r"[^A-Za-z0-9._/ -]", "?", name)[:100]


def _check_contents(archive: ZipFile, parts: Mapping[str, ZipInfo], types: Mapping[str, str]) -> None:
    """Inflate every part. Raise for one that is not as declared, or has a type definition, or a field that runs a
    program."""
    left = MAX_FIELDS
    for name, part in parts.items():
        if not _XML.search(name) and (types[name].startswith("image/") or not _XML.search(types[name])):
            for _ in inflated(archive, part):
                pass
        elif xml := _check_xml(archive, part):
            left -= len(xml)
            if left < 0:
                raise UnsafeArchive("The parts with field codes are oversized.")
            if fields.runs_program(fields.as_utf8(xml)):
                raise ActiveContent("A field of the document runs a program (DDE).")


def _check_xml(archive: ZipFile, part: ZipInfo) -> bytes:
    """Raise for a document type definition. Returns the part if it has field codes, else nothing."""
    chunks = inflated(archive, part)
    read = [next(chunks, b"")]
    if not read[0].startswith(b"PK"):  # a document within the document, which is not read as XML
        check_prolog(read[0])
    has_fields, size = fields.may_be_in(read[0]), len(read[0])
    for chunk in chunks:
        has_fields = has_fields or fields.may_be_in(read[-1][-16:] + chunk)
        size += len(chunk)
        if size <= MAX_FIELDS:
            read.append(chunk)
        elif has_fields:
            raise UnsafeArchive("The parts with field codes are oversized.")
        else:
            read[-1] = chunk
    return b"".join(read) if has_fields else b""
