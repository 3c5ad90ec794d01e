"""Files for tests, small and made by hand. Unless they are encrypted, the same arguments give the same bytes."""

import io
from functools import cache
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pypdf import PdfReader, PdfWriter

from app.files import package, sniffing

PDF_TYPE, DOCX_TYPE = sniffing.PDF, sniffing.DOCX
MAIN_TYPE = f"{DOCX_TYPE}.main+xml"
TYPES = "[Content_Types].xml"
MAIN = "word/document.xml"


def pdf(text: str = "Hello", pages: int = 1) -> bytes:
    """A PDF whose pages say `text 1`, `text 2` and so on."""
    numbers = range(4, 4 + 2 * pages, 2)
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {pages} /Kids [{' '.join(f'{number} 0 R' for number in numbers)}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for page, number in enumerate(numbers, start=1):
        said = f"{text} {page}".replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        content = f"BT /F1 24 Tf 72 720 Td ({said}) Tj ET"
        resources = "/MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {resources} /Contents {number + 1} 0 R >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    body, offsets = b"%PDF-1.7\n", []
    for number, value in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{value}\nendobj\n".encode("latin-1")
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    xref = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}"
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + (xref + trailer).encode()


def encrypted_pdf(password: str) -> bytes:
    """A PDF that opens with `password` only."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf())))
    writer.encrypt(password, algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def zipped(entries: dict[str, bytes], compression: int = ZIP_DEFLATED) -> bytes:
    """A ZIP archive. Entries are dated 1980, or the same entries would give other bytes two seconds later."""
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(ZipInfo(name), data, compression)
    return file.getvalue()


def content_types(main: str = MAIN_TYPE, more: str = "") -> bytes:
    """The list of a package's content types, with `main` as that of its main part."""
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/{MAIN}" ContentType="{main}"/>{more}</Types>'
    ).encode()


def document_xml(text: str = "Hello", prolog: str = "", more: str = "") -> str:
    """The main part of a DOCX, with one paragraph; `more` are further ones."""
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    paragraph = f"<w:p><w:r><w:t>{escaped}</w:t></w:r></w:p>"
    return f'{prolog}<w:document xmlns:w="{namespace}"><w:body>{paragraph}{more}</w:body></w:document>'


def docx(text: str = "Hello") -> bytes:
    """The smallest DOCX that opens: one paragraph with `text`."""
    return docx_with({MAIN: document_xml(text).encode()})


RELATED = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def relationships(*related: tuple[str, str] | tuple[str, str, str], base: str = RELATED) -> bytes:
    """A part that lists what another is related to: by kind, target and, if it lies elsewhere, "External"."""
    entries = "".join(
        f'<Relationship Id="rId{number}" Type="{base}/{kind}" Target="{target}"'
        + (f' TargetMode="{mode[0]}"/>' if mode else "/>")
        for number, (kind, target, *mode) in enumerate(related)
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{namespace}">{entries}</Relationships>'.encode()


def docx_with(entries: dict[str, bytes], compression: int = ZIP_DEFLATED) -> bytes:
    """A DOCX with further entries, or others in place of its own."""
    own = {
        TYPES: content_types(),
        "_rels/.rels": relationships(("officeDocument", MAIN)),
        MAIN: document_xml().encode(),
    }
    return zipped(own | entries, compression)


def related(*entries: tuple[str, str] | tuple[str, str, str]) -> bytes:
    """A DOCX whose main part is related to these."""
    return docx_with({"word/_rels/document.xml.rels": relationships(*entries)})


def macro_docx() -> bytes:
    """A macro part in what is otherwise a DOCX."""
    kind = "application/vnd.ms-office.vbaProject"
    types = content_types(more=f'<Default Extension="bin" ContentType="{kind}"/>')
    return docx_with({TYPES: types, "word/vbaProject.bin": b"\xd0\xcf\x11\xe0"})


@cache
def bomb_docx() -> bytes:
    """Some 20 KB that inflate to a little more than 16 MiB."""
    return docx_with({"word/media/image1.png": bytes(package.RATIO_FREE)})


def dtd_docx(encoding: str = "utf-8") -> bytes:
    """A main part with a document type definition. Only an XML parser finds it in other encodings than UTF-8."""
    definition = '<!DOCTYPE w:document [<!ENTITY lol "lol">]>'
    return docx_with({MAIN: document_xml(prolog=definition).encode(encoding)})


def polyglot() -> bytes:
    """A PDF to readers of PDF, and a DOCX to readers of ZIP archives."""
    whole = pdf()
    return whole + docx() + whole[whole.index(b"xref") :]


def xlsx_like() -> bytes:
    """A package whose main part is a workbook."""
    workbook = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    return docx_with({TYPES: content_types(workbook)})
