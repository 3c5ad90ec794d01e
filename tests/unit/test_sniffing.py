import errno
import io
import re
import struct
import tempfile
import tracemalloc
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo
from zlib import crc32

import pytest
from hypothesis import given, settings, strategies as st

import app
from app.errors import (
    ActiveContent,
    ExternalReference,
    MacrosNotAllowed,
    PolyglotFile,
    UnsafeArchive,
    UnsupportedDocument,
    UnsupportedMediaType,
)
from app.files import package
from app.files.sniffing import plausible, sniff
from tests.support.factories import (
    DOCX_TYPE,
    MAIN,
    MAIN_TYPE,
    PDF_TYPE,
    TYPES,
    bomb_docx,
    content_types,
    document_xml,
    docx,
    docx_with,
    dtd_docx,
    encrypted_pdf,
    macro_docx,
    pdf,
    polyglot,
    related,
    relationships,
    xlsx_like,
    zipped,
)

REFUSALS = (UnsupportedDocument, MacrosNotAllowed, ActiveContent, ExternalReference, PolyglotFile, UnsafeArchive)
DEFINITION = b'<!DOCTYPE r [<!ENTITY a "b">]>'
TYPED_BY_EXTENSION = content_types().replace(f'Override PartName="/{MAIN}"'.encode(), b'Default Extension="XML"')
UNSAFE_NAMES = ("", "/etc/passwd", "../up", "a/..", "..", "a\\b", "C:/a", "a\0.xml")
EMPTY_ZIP = b"PK\5\6" + bytes(18)
SAMPLES = Path(app.__file__).parent / "samples"


def sniffed(data: bytes) -> str:
    """What `sniff` makes of a file opened as the storage opens it: unbuffered."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        return sniff(file)


FIELDS = {"flags": (8, "<H"), "crc": (16, "<L"), "packed": (20, "<L"), "size": (24, "<L"), "offset": (42, "<L")}


def patched(data: bytes, **fields: int) -> bytes:
    """The archive, with other values in the directory record of its last entry (APPNOTE 4.3.12)."""
    changed, record = bytearray(data), data.rindex(b"PK\1\2")
    for field, value in fields.items():
        offset, layout = FIELDS[field]
        struct.pack_into(layout, changed, record + offset, value)
    return bytes(changed)


def appended(data: bytes, entry: ZipInfo) -> bytes:
    """The archive, or what is to become one, with an empty entry more and offsets that count from the first byte."""
    file = io.BytesIO(data)
    with ZipFile(file, "a") as archive:
        archive.writestr(entry, b"")
    return file.getvalue()


def far_entry() -> bytes:
    """A DOCX with an entry at the largest offset there is."""
    entry = ZipInfo("far")
    entry.extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    return patched(appended(docx(), entry), offset=0xFFFFFFFF)


def two_directories() -> bytes:
    """A DOCX with another directory in the comment of its last entry. Readers that know ZIP64 believe that one."""
    data = docx()
    entries, size, offset = struct.unpack("<10xH2L2x", data[-22:])
    directory = data[offset : offset + size]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset + size)
    comment = directory + record + struct.pack("<4sLQL", b"PK\6\7", 0, offset + 2 * size, 1)
    outer = bytearray(directory)
    struct.pack_into("<H", outer, directory.rindex(b"PK\1\2") + 32, len(comment))
    end = struct.pack("<4s4xHHLLH", b"PK\5\6", entries, entries, size + len(comment), offset, 0)
    return data[:offset] + outer + comment + end


def renamed(name: str) -> bytes:
    """A DOCX with an entry of that name, whether or not `zipfile` would write it."""
    return docx_with({"#" * len(name): b""}).replace(b"#" * len(name), name.encode())


def with_part(name: str, content_type: str, data: bytes = b"") -> bytes:
    types = content_types(more=f'<Override PartName="/{name}" ContentType="{content_type}"/>')
    return docx_with({TYPES: types, name: data})


def including(document: bytes) -> bytes:
    """A DOCX that Word merges with another as it opens it."""
    return docx_with(
        {
            TYPES: content_types(more=f'<Override PartName="/word/part.docx" ContentType="{MAIN_TYPE}"/>'),
            "word/part.docx": document,
            "word/_rels/document.xml.rels": relationships(("aFChunk", "/word/part.docx")),
        }
    )


def with_xml(xml: bytes) -> bytes:
    return docx_with({"customXml/item1.xml": xml})


STRICT = "http://purl.oclc.org/ooxml/officeDocument/relationships"


def with_body(more: str, encoding: str = "utf-8") -> bytes:
    return docx_with({MAIN: document_xml(more=more).encode(encoding)})


def field(*runs: str, result: str = "1") -> str:
    """A field whose code is divided among runs."""
    code = "".join(f"<w:r><w:instrText>{run}</w:instrText></w:r>" for run in runs)
    marks = {name: f'<w:r><w:fldChar w:fldCharType="{name}"/></w:r>' for name in ("begin", "separate", "end")}
    return f"{marks['begin']}{code}{marks['separate']}<w:r><w:t>{result}</w:t></w:r>{marks['end']}"


def with_fields(*codes: str) -> bytes:
    return with_body("".join(f"<w:p>{field(code)}</w:p>" for code in codes))


def quoted_dde() -> bytes:
    """A field whose code comes out of another's: 68 68 69 are D, D and E."""
    marks = {name: f'<w:r><w:fldChar w:fldCharType="{name}"/></w:r>' for name in ("begin", "end")}
    return with_body(
        f"<w:p>{marks['begin']}{field('QUOTE 68 68 69')}<w:r><w:instrText> c</w:instrText></w:r>{marks['end']}</w:p>"
    )


ACCEPTED = {
    "pdf": (pdf(), PDF_TYPE),
    "pdf, encrypted": (encrypted_pdf("secret"), PDF_TYPE),
    "pdf, header at the end of the first KiB": (b"\n" * 1019 + pdf(), PDF_TYPE),
    "pdf, header behind a BOM and blanks": (b"\xef\xbb\xbf \r\n" + pdf(), PDF_TYPE),
    "pdf, NULs behind": (pdf() + b"\0" * 200_000, PDF_TYPE),
    "pdf, a remark behind": (pdf() + b"% signed\n", PDF_TYPE),
    "pdf, a DOCX attached": (pdf("x", 1).replace(b"BT /F1", docx() + b"\nendstream\nstream\nBT /F1"), PDF_TYPE),
    "pdf, a ZIP signature by chance": (pdf().replace(b"Hello", b"PK\5\6\xff"), PDF_TYPE),
    "docx": (docx(), DOCX_TYPE),
    "docx, stored": (docx_with({}, ZIP_STORED), DOCX_TYPE),
    "docx, 3000 entries": (docx_with({f"media/{number}": b"" for number in range(2997)}), DOCX_TYPE),
    "docx, commented": (docx()[:-2] + b"\6\0zip-rs", DOCX_TYPE),
    "docx, a line break behind": (docx() + b"\r\n", DOCX_TYPE),
    "docx, Strict": (docx_with({"_rels/.rels": relationships(("officeDocument", MAIN), base=STRICT)}), DOCX_TYPE),
    "docx, main part from the root": (
        docx_with({"_rels/.rels": relationships(("officeDocument", f"/{MAIN}"))}),
        DOCX_TYPE,
    ),
    "docx, a document within": (with_part("word/afchunk.dat", MAIN_TYPE, docx()), DOCX_TYPE),
    "docx, a document included": (including(docx()), DOCX_TYPE),
    "docx, a workbook within": (
        with_part("word/embeddings/a.xlsb", "application/vnd.ms-excel.sheet.binary.macroEnabled.12"),
        DOCX_TYPE,
    ),
    "docx, a drawing with a definition": (
        with_part("word/media/a.svg", "image/svg+xml", DEFINITION + b"<svg/>"),
        DOCX_TYPE,
    ),
    "docx, links": (
        related(("hyperlink", "https://example.com/", "External"), ("image", "https://example.com/a.png", "External")),
        DOCX_TYPE,
    ),
    "docx, a template of its own": (
        related(("attachedTemplate", "file:///C:\\Users\\ada\\letter.dotm", "External")),
        DOCX_TYPE,
    ),
    "docx, fields": (with_fields("TOC \\o", 'HYPERLINK "https://example.com/?dde"', "DATE"), DOCX_TYPE),
    "docx, a folder as an entry": (docx_with({"word/": b""}), DOCX_TYPE),
    "docx, utf-16": (docx_with({MAIN: document_xml().encode("utf-16")}), DOCX_TYPE),
    "docx, long prolog": (with_xml(b"<!--" + b" " * 60_000 + b"--><r/>"), DOCX_TYPE),
    "docx, definition quoted": (with_xml(b"<!-- " + DEFINITION + b" --><r/>"), DOCX_TYPE),
    "docx, definition in what is not XML": (with_part("word/page.htm", "text/html", DEFINITION), DOCX_TYPE),
    "docx, typed by extension": (docx_with({TYPES: TYPED_BY_EXTENSION}), DOCX_TYPE),
    "sample.pdf": ((SAMPLES / "sample.pdf").read_bytes(), PDF_TYPE),
    "sample.docx": ((SAMPLES / "sample.docx").read_bytes(), DOCX_TYPE),
}


def workbook_beside() -> bytes:
    """A package that leads to a workbook, with the main part of a document beside it."""
    workbook = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    types = content_types(more=f'<Override PartName="/xl/workbook.xml" ContentType="{workbook}"/>')
    root = relationships(("officeDocument", "xl/workbook.xml"))
    return docx_with({TYPES: types, "_rels/.rels": root, "xl/workbook.xml": b"<workbook/>"})


UNSUPPORTED = {
    "nothing": b"",
    "text": b"Hello",
    "html": b"<!DOCTYPE html><html></html>",
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(2000),
    "old word": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
    "pdf, header late": b"\n" * 1020 + pdf(),
    "pdf, header only": b"%PDF-1.7\n",
    "pdf, cut off": pdf()[:-7],
    "pdf, end far from the end": pdf() + b"x" * 2048,
    "docx, protected by a password": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    + bytes(22)
    + b"\t\0"
    + bytes(480)
    + "EncryptedPackage".encode("utf-16-le")
    + bytes(480),
    "docx, no main part": docx_with({"_rels/.rels": relationships()}),
    "docx, two main parts": docx_with(
        {"_rels/.rels": relationships(("officeDocument", MAIN), ("officeDocument", MAIN))}
    ),
    "docx, led to a workbook": workbook_beside(),
    "pdf, end before startxref": pdf().replace(b"startxref", b"") + b"startxref",
    "zip": zipped({"hello.txt": b"Hello"}),
    "xlsx": xlsx_like(),
    "docx, cut off": docx()[:-30],
    "docx, damaged": docx().replace(b"PK\3\4", b"PK\3\5").replace(b"PK\3\5", b"PK\3\4", 1),
    "docx, bad crc": patched(docx(), crc=0),
    "docx, encrypted": patched(docx(), flags=1),
    "docx, bad deflate": re.sub(rb"document\.xml.", b"document.xml\xff", docx(), count=1, flags=re.DOTALL),
    "docx, bad utf-8": docx_with({"é": b""}).replace("é".encode(), b"\xff\xff"),
    "docx, entry beyond the end": patched(docx_with({}, ZIP_STORED), packed=9999),
    "docx, entry outside": far_entry(),
    "docx, first bytes damaged": b"##" + docx()[2:],
    "docx, entry miscounted": docx()[:-14] + struct.pack("<2H", 2, 2) + docx()[-10:],
    "docx, names in directory and header differ": docx().replace(b"word/document.xml", b"word/abcdefgh.xml", 1),
    "docx, bzip2": docx_with({}, ZIP_BZIP2),
    "docx, lzma": docx_with({}, ZIP_LZMA),
    "docx, two directories": two_directories(),
    "docx, main part missing": docx_with({TYPES: content_types().replace(MAIN.encode(), b"word/other.xml")}),
    "docx, main part of a template": docx_with(
        {TYPES: content_types(MAIN_TYPE.replace("document.main", "template.main"))}
    ),
    "docx, types malformed": docx_with({TYPES: content_types()[:-1]}),
    "docx, types of another namespace": docx_with({TYPES: content_types().replace(b"/package/2006", b"/other")}),
    "docx, types twice": with_part(MAIN, MAIN_TYPE, document_xml().encode()),
    "docx, xml malformed": with_xml(b"<"),
    "docx, xml empty": with_xml(b""),
    "docx, xml in a rare encoding": with_xml(b'<?xml version="1.0" encoding="utf-7"?><r/>'),
    "docx, xml in a codec of Python": with_xml(b'<?xml version="1.0" encoding="unicode_escape"?><r/>'),
    "docx, definition behind a long comment": with_xml(b"<!--" + b" " * 70_000 + b"-->" + DEFINITION + b"<r/>"),
}

MICROSOFT = "http://schemas.microsoft.com/office/2006/relationships"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
MACROS = {
    "part": macro_docx(),
    "part by name": docx_with({"word/VBAProject.bin": b""}),
    "part by type": with_part("word/innocent.dat", "application/vnd.ms-office.VbaProject"),
    "main part": docx_with({TYPES: content_types("application/vnd.ms-word.document.macroEnabled.main+xml")}),
    "part by relationship": docx_with(
        {"word/_rels/document.xml.rels": relationships(("vbaProject", "x.bin"), base=MICROSOFT), "word/x.bin": b""}
    ),
    "a workbook within": with_part("word/a.xlsm", "application/vnd.ms-excel.sheet.macroEnabled.12"),
}

ACTIVE = {
    "OLE object": related(("oleObject", "embeddings/oleObject1.bin")),
    "OLE object elsewhere": related(
        ("oleObject", "mhtml:http://example.com/x.html!x-usc:http://example.com/x", "External")
    ),
    "OLE object by type": with_part("word/embeddings/a.bin", "application/vnd.openxmlformats-officedocument.oleObject"),
    "control": related(("control", "activeX/activeX1.xml")),
    "a text of another format": related(("aFChunk", "afchunk.rtf")),
    "DDE": with_fields("DDEAUTO c:\\\\windows\\\\system32\\\\cmd.exe"),
    "DDE in a document included": including(with_fields("DDE x")),
    "an OLE object in a document included": including(with_part("a.bin", "application/vnd.ms-office.oleObject")),
    "a document included in one": including(including(docx())),
    "DDE in runs": with_body(f"<w:p>{field(' D', 'D', 'E auto')}</w:p>"),
    "DDE in a simple field": with_body('<w:p><w:fldSimple w:instr="ddeauto x y"/></w:p>'),
    "DDE by entities": with_fields("&#68;DE x"),
    "DDE in CDATA": with_fields("<![CDATA[DDE]]> x"),
    "DDE by a comment": with_fields("D<!-- -->DE x"),
    "DDE by QUOTE": quoted_dde(),
    "DDE in UTF-16": with_body(f"<w:p>{field('DDE x')}</w:p>", "utf-16"),
    "DDE of another prefix": with_part(
        "word/header1.xml", "application/xml", f'<h xmlns="{WORD}"><instrText>DDE x</instrText></h>'.encode()
    ),
}

EXTERNAL = {
    "template": related(("attachedTemplate", "https://example.com/macros.dotm", "External")),
    "template by share": related(("attachedTemplate", "\\\\example.com\\share\\a.dotm", "External")),
    "template by file and share": related(("attachedTemplate", "file:////example.com/a.dotm", "external")),
    "template by percent": related(("attachedTemplate", "%68ttp://example.com/a.dotm", "External")),
    "frame": related(("frame", "https://example.com/", "External")),
    "chunk": related(("aFChunk", "https://example.com/a.html", "External")),
    "document within": related(("subDocument", "file:///C:/a.docx", "External")),
}

POLYGLOTS = {
    "docx, including one that begins otherwise": including(b"PK00" + with_fields("DDE x")),
    "pdf, then docx": polyglot(),
    "pdf, then empty zip": pdf() + EMPTY_ZIP,
    "pdf, then zip with the pdf's end as its comment": pdf() + docx()[:-2] + struct.pack("<H", len(pdf())) + pdf(),
    "pdf inside docx": docx_with({}, ZIP_STORED).replace(b"Hello", b"%PDF-"),
    "html, then pdf": b"\n<script>/*" + pdf(),
    "gif, then pdf": b"GIF89a" + pdf(),
    "docx, then bytes": docx() + b"\n#",
    "docx, then many blanks": docx() + bytes(2000),
    "docx, then more than its comment": docx()[:-2] + b"\1\0##",
    "jar": docx_with({"META-INF/MANIFEST.MF": b"Main-Class: X"}),
    "apk": docx_with({"classes.dex": b"dex"}),
    "odt": docx_with({"META-INF/manifest.xml": b"<m/>"}),
    "bytes, then pdf": b"x" + pdf(),
    "batch file, then pdf": b"@echo off\r\n" + pdf(),
    "rtf, then pdf": b"{\\rtf1 }" + pdf(),
    "html behind a BOM, then pdf": b"\xef\xbb\xbf<html>" + pdf(),
    "pdf, then a zip that claims to be in a stream": pdf() + b"stream\n" + docx()[:-2] + b"\x0f\0\nendstream%%EOF",
    "pdf, then zip with two end signatures": pdf() + zipped({"PK\5\6": b""}),
    "program, then docx": b"MZ" + docx(),
    "program, then docx with offsets that count it": appended(b"MZ", ZipInfo(MAIN)),
}

UNSAFE = {
    "bomb": bomb_docx(),
    "too many entries": docx_with({f"media/{number}": b"" for number in range(package.MAX_ENTRIES)}),
    "large directory": docx_with({f"{number:04}" + "x" * 1200: b"" for number in range(3600)}),
    "large list of types": docx_with({TYPES: content_types(more=" " * package.MAX_LISTING)}),
    "size understated": patched(docx(" " * 100_000), size=100, crc=crc32(document_xml(" " * 100_000).encode()[:100])),
    "size overstated": patched(docx(), size=9999),
    "names equal without case": docx_with({MAIN.upper(): b""}),
    "names equal as file and folder": docx_with({"word": b"", "word/": b""}),
    "names equal": docx_with({"a.xml": b"<r/>", "b.xml": b"<r/>"}).replace(b"b.xml", b"a.xml"),
    **{f"name {name!r}": renamed(name) for name in UNSAFE_NAMES},
    "definition": dtd_docx(),
    "definition in utf-16": dtd_docx("utf-16"),
    "definition without a mark of its utf-16": dtd_docx("utf-16-le"),
    "definition behind a comment": with_xml(b"<!--" + b" " * 60_000 + b"-->" + DEFINITION + b"<r/>"),
    "definition in types": docx_with({TYPES: content_types().replace(b"?>", b"?>" + DEFINITION)}),
    "definition in relationships": docx_with({"word/_rels/document.xml.RELS": DEFINITION + b"<r/>"}),
    "definition in xml by type": with_part("word/styles.dat", "application/xml", DEFINITION + b"<r/>"),
}


@pytest.mark.parametrize(("data", "content_type"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(data, content_type):
    assert sniffed(data) == content_type
    assert plausible(data[:1024])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(data, error, id=f"{error.code}: {name}")
        for error, files in zip(REFUSALS, (UNSUPPORTED, MACROS, ACTIVE, EXTERNAL, POLYGLOTS, UNSAFE), strict=True)
        for name, data in files.items()
    ],
)
def test_refuses(data, error):
    with pytest.raises(error) as refusal:
        sniffed(data)
    assert type(refusal.value) is error
    assert refusal.value.detail != error().detail, "it says what is wrong with this file"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "The file is empty."),
        (b"plain text", "The file does not begin as a PDF or a DOCX does."),
        (b"\xff\xd8\xff\xe0", "The file is a JPEG image."),
        (b"\n<!doctype html>", "The file is HTML or XML."),
        (docx()[:300], "The ZIP archive has no end: it may have been cut off."),
        (pdf()[:300], "The PDF does not end with %%EOF: it may have been cut off."),
        (b"GIF89a" + pdf(), "A GIF image stands before the header of the PDF."),
        (docx() + b"\n#", "There is data behind the ZIP archive."),
        (MACROS["a workbook within"], "There are macros in the part word/a.xlsm."),
        (docx_with({"word/vbaProject.bin": b""}), "There are macros in the part word/vbaProject.bin."),
        (
            with_part("word/Object1.bin", "application/vnd.ms-office.oleObject"),
            "The part word/Object1.bin is an OLE object or a control.",
        ),
        (UNSUPPORTED["docx, encrypted"], "The ZIP archive is encrypted with a password."),
        (UNSUPPORTED["docx, lzma"], "The ZIP archive is compressed in a way that no DOCX is."),
        (UNSUPPORTED["docx, types malformed"], "A part of the DOCX is not well-formed XML."),
        (with_xml(b"</r>"), "A part of the DOCX is not well-formed XML."),
        (UNSUPPORTED["docx, bad crc"], "The ZIP archive is damaged."),
        (UNSUPPORTED["docx, protected by a password"], "The document is protected with a password."),
        (UNSUPPORTED["docx, main part of a template"], "The ZIP archive is not a DOCX: it is a template."),
        (UNSUPPORTED["xlsx"], "The ZIP archive is not a DOCX: it is a workbook."),
    ],
)
def test_a_refusal_says_the_true_reason(data, reason):
    with pytest.raises(UnsupportedMediaType) as refusal:
        sniffed(data)
    assert refusal.value.detail == reason


@pytest.mark.parametrize("length", range(22))
def test_an_end_that_is_cut_off_is_none(length):
    with pytest.raises(UnsupportedDocument):
        sniffed(EMPTY_ZIP[:length])


@pytest.mark.parametrize("head", [b"", b"PK\3", b"\xff\xd8\xff\xe0", b"\n" * 1020 + b"%PDF-", b"PK\5\6"])
def test_implausible(head):
    assert not plausible(head)


@pytest.mark.parametrize(
    ("limits", "narrowed"),
    [
        ({"MAX_INFLATED": 10_000}, {"MAX_INFLATED": 9_999}),
        ({"RATIO_FREE": 10_000, "MAX_RATIO": 1}, {"RATIO_FREE": 9_999}),
        ({"RATIO_FREE": 0, "MAX_RATIO": 11}, {"MAX_RATIO": 10}),
    ],
)
def test_limits_of_inflating(monkeypatch, limits, narrowed):
    with ZipFile(io.BytesIO(docx())) as archive:
        rest = sum(part.file_size for part in archive.infolist())
    data = docx_with({"word/media/image1.png": bytes(10_000 - rest)})
    assert 10 < 10_000 / len(data) < 11
    for name, value in limits.items():
        monkeypatch.setattr(package, name, value)
    assert sniffed(data) == DOCX_TYPE
    for name, value in narrowed.items():
        monkeypatch.setattr(package, name, value)
    with pytest.raises(UnsafeArchive):
        sniffed(data)


@pytest.mark.parametrize("before", ["", "<w:p/>" * 50_000])
def test_parts_with_field_codes_are_read_up_to_a_limit(monkeypatch, before):
    paragraphs = "<w:p/>" * 50_000
    data = with_body(before + f"<w:p>{field('PAGE')}</w:p>" + paragraphs)
    assert sniffed(data) == DOCX_TYPE
    monkeypatch.setattr(package, "MAX_FIELDS", 200_000)
    assert sniffed(with_body(before + paragraphs)) == DOCX_TYPE
    with pytest.raises(UnsafeArchive):
        sniffed(data)


def test_memory_does_not_grow_with_the_file():
    data = docx_with({"word/media/image1.png": bytes(package.RATIO_FREE - 10_000)})
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        tracemalloc.start()
        try:
            assert sniff(file) == DOCX_TYPE
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


class FailingDisk(io.BytesIO):
    """A file on a disk that fails after some reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self.reads_left = reads

    def read(self, size: int | None = -1) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("data", [pdf(), docx()], ids=["pdf", "docx"])
def test_failing_disk_is_no_verdict_on_the_file(data):
    for reads in range(100):
        try:
            sniff(FailingDisk(data, reads))
        except OSError:
            continue
        break
    assert 2 < reads < 99


@pytest.mark.parametrize("data", [pdf(), docx()], ids=["pdf", "docx"])
def test_every_truncation_is_refused(data):
    for length in range(len(data.rstrip())):
        with pytest.raises(UnsupportedDocument):
            sniffed(data[:length])


def verdict(data: bytes) -> object:
    """What `sniff` answers. Anything but a type or one of its errors fails the test."""
    try:
        return sniffed(data)
    except REFUSALS as error:
        return type(error)


@given(st.binary(max_size=3000))
def test_any_bytes(data):
    assert verdict(data) in REFUSALS


FILES = st.sampled_from([pdf(), encrypted_pdf(""), docx(), docx_with({}, ZIP_STORED), macro_docx(), polyglot()])
SPLICES = st.lists(
    st.tuples(st.integers(0, 5000), st.sampled_from([0, 1, 2, 4, 100]), st.binary(max_size=8)), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=500)
@given(FILES, SPLICES)
def test_any_change_to_a_file(data, splices):
    for position, dropped, inserted in splices:
        at = position % (len(data) + 1)
        data = data[:at] + inserted + data[at + dropped :]
    assert verdict(data) in (PDF_TYPE, DOCX_TYPE, *REFUSALS)
