import asyncio
import io
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pikepdf
import pytest
import uvloop
from pypdf import PdfReader, PdfWriter
from pypdfium2 import PdfDocument, PdfiumError

import app
from app.processors import confined
from app.processors.base import Permanent, ProcessingError, Source, Transient
from app.processors.child import MAX_LINES
from app.processors.text import output
from app.processors.text.pdf_metadata import pdf_date
from app.processors.text.processor import TextParams, TextProcessor
from app.testing import source as document
from tests.support.factories import DOCX_TYPE, MAIN, PDF_TYPE, docx, docx_with, encrypted_pdf, pdf, zipped

MiB = 1024**2
SAMPLES = Path(app.__file__).parent / "samples"
NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
TRANSITIONAL, STRICT = (
    "http://schemas.openxmlformats.org/officeDocument/2006",
    "http://purl.oclc.org/ooxml/officeDocument",
)
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
CORE = f'<Relationship Id="core" Type="{PACKAGE}/metadata/core-properties" Target="docProps/core.xml"/>'
# In the place of what confines a child: runs the module as it is.
UNCONFINED = """
import json, sys
launch = json.loads(sys.argv[1])
sys.path.append(launch["root"])
__import__(launch["module"])
"""
DIES = "signal.signal(signal.SIGTERM, signal.SIG_DFL)"
PROGRESS = """print('{"progress": 0.5}', flush=True)"""
# Has the file named by its argument read, and says the reader's pid once it is at it.
PARENT = """
import asyncio, os, sys
from pathlib import Path
from app.processors.text.processor import TextParams, TextProcessor
from app.testing import source

child = Path(f"/proc/self/task/{os.getpid()}/children")
given = source(Path(sys.argv[1]))
asyncio.run(TextProcessor().run(given, TextParams(), lambda _: print(child.read_text(), flush=True)))
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc, or what only Linux offers")
limits_memory = pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit memory")

Extract = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
Scripted = Callable[..., TextProcessor]


def source(path: Path, kind: str = PDF_TYPE) -> Source:
    return replace(document(SAMPLES / "sample.pdf"), path=path, content_type=kind)


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Runs a processor, with the params given, on a file of these bytes."""

    async def run(
        data: bytes = b"", kind: str = PDF_TYPE, by: TextProcessor | None = None, **params: Any
    ) -> dict[str, Any]:
        path = tmp_path / "document"
        path.write_bytes(data)
        return await (by or TextProcessor()).run(source(path, kind), TextParams(**params), lambda _: None)

    return run


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Makes processors whose child runs another program."""
    (tmp_path / "code").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "code")

    def make(program: str, seconds: float = 60) -> TextProcessor:
        (tmp_path / "code" / "script.py").write_text(f"import json, os, signal, sys, time\n{program}")
        return TextProcessor(module="script", seconds=seconds)

    return make


@pytest.fixture
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets children do what they please."""
    monkeypatch.setattr(confined, "PROGRAM", UNCONFINED)


async def failure(run: Coroutine[Any, Any, object]) -> tuple[type[ProcessingError], str]:
    with pytest.raises(ProcessingError) as caught:
        await run
    return caught.type, caught.value.code


def pdf_of(content: bytes, filters: str = "/FlateDecode", pages: int = 1, count: int = 0) -> bytes:
    """A PDF whose pages share one content stream. It has no table of its objects: readers search for them."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {count or pages} /Kids [{' 3 0 R' * pages}] >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 5 0 R /Resources << /Font << /F1 4 0 R >> >> >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body = "".join(f"{number} 0 obj\n{value}\nendobj\n" for number, value in enumerate(objects, start=1))
    head = f"%PDF-1.7\n{body}5 0 obj\n<< /Length {len(content)} /Filter [{filters}] >>\nstream\n"
    return head.encode() + content + b"\nendstream\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"


def drawing(operators: bytes) -> bytes:
    return zlib.compress(b"BT /F1 12 Tf 9 72 Td " + operators + b" ET")


def endless_pdf() -> bytes:
    """Most of a minute's work in some kilobytes: 10,000 pages, each of which draws the same 2,000 words."""
    return pdf_of(drawing(b"(word) Tj " * 2_000), pages=10_000)


def filled_form() -> bytes:
    """A PDF with a text field, a box that is ticked, and a note that is typed onto the page."""
    document = pikepdf.open(io.BytesIO(pdf()))
    page = document.pages[0]
    font = document.make_indirect(page.Resources.Font.F1)

    def drawn(text: str) -> pikepdf.Object:
        form = document.make_stream(f"BT /F1 12 Tf 2 2 Td ({text}) Tj ET".encode())
        form.Type, form.Subtype, form.BBox = pikepdf.Name.XObject, pikepdf.Name.Form, [0, 0, 100, 20]
        form.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=font))
        return form

    def annotation(top: int, **more: object) -> pikepdf.Object:
        fixed = {"Type": pikepdf.Name.Annot, "Rect": [72, top - 20, 172, top], "F": 4}
        return document.make_indirect(pikepdf.Dictionary(**fixed, **more))

    widget = pikepdf.Name.Widget
    name = annotation(500, Subtype=widget, FT=pikepdf.Name.Tx, T="name", V="Ada", AP=pikepdf.Dictionary(N=drawn("Ada")))
    states = pikepdf.Dictionary(Yes=document.make_stream(b""), Off=document.make_stream(b""))
    agreed = annotation(
        400,
        Subtype=widget,
        FT=pikepdf.Name.Btn,
        T="agreed",
        V=pikepdf.Name.Yes,
        AS=pikepdf.Name.Yes,
        AP=pikepdf.Dictionary(N=states),
    )
    note = annotation(300, Subtype=pikepdf.Name.FreeText, Contents="paid", AP=pikepdf.Dictionary(N=drawn("paid")))
    page.Annots = pikepdf.Array([name, agreed, note])
    document.Root.AcroForm = document.make_indirect(pikepdf.Dictionary(Fields=pikepdf.Array([name, agreed])))
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def saved(document: PdfWriter) -> bytes:
    file = io.BytesIO()
    document.write(file)
    return file.getvalue()


def docx_of(body: str, entries: dict[str, str] | None = None, relationships: str = "") -> bytes:
    """A DOCX with this body, further entries, and further relationships of the package."""
    main = f'<Relationship Id="main" Type="{TRANSITIONAL}/relationships/officeDocument" Target="{MAIN}"/>'
    document = f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>"
    package = {MAIN: document, "_rels/.rels": f'<Relationships xmlns="{PACKAGE}">{main}{relationships}</Relationships>'}
    return docx_with({name: text.encode() for name, text in (package | (entries or {})).items()})


def certified_pdf() -> bytes:
    """A PDF that only whoever has a certificate can open (ISO 32000-2 §7.6.5)."""
    handler = b"/Encrypt << /Filter /Adobe.PubSec /SubFilter /adbe.pkcs7.s5 /V 4 /Length 128 >> /ID [<00> <00>]"
    return pdf().replace(b"/Root", handler + b" /Root")


def run_of(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


@pytest.mark.parametrize(("name", "kind"), [("sample.pdf", PDF_TYPE), ("sample.docx", DOCX_TYPE)])
async def test_samples(extract: Extract, name: str, kind: str) -> None:
    result = await extract((SAMPLES / name).read_bytes(), kind)
    assert result["text"]


class TestPdf:
    async def test_text_and_pages(self, extract: Extract) -> None:
        assert await extract(pdf("Hello", pages=3)) == {
            "text": "Hello 1\fHello 2\fHello 3",
            "engine": "pdfium",
            "plain_pages": [],
            "chunks": None,
            "characters": 23,
            "words": 6,
            "truncated": False,
            "language": None,
            "pages": [{"number": n, "text": f"Hello {n}", "characters": 7, "images": 0} for n in (1, 2, 3)],
            "page_count": 3,
            "unreadable_pages": [],
            "needs_ocr": [],
            "form": [],
            "metadata": {},
        }

    async def test_metadata(self, extract: Extract) -> None:
        stated = {"Title": "On\x00 😀\r\n  lines", "Author": "José", "Subject": " ", "Keywords": "k" * 5000}
        dates = {"CreationDate": "D:20240131120000+02'00'", "ModDate": "yesterday"}
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf())))
        writer.metadata = {f"/{key}": value for key, value in (stated | dates | {"Secret": "not asked for"}).items()}
        assert (await extract(saved(writer)))["metadata"] == {
            "title": "On 😀 lines",
            "author": "José",
            "keywords": "k" * 1000,
            "created": "2024-01-31T10:00:00Z",
        }

    async def test_half_a_surrogate_pair_in_a_title_costs_only_the_title(self, extract: Extract) -> None:
        info = b"endobj\n6 0 obj\n<< /Title (\xfe\xff\xd8\x00) /Author (me) >>\nendobj\ntrailer\n<< /Info 6 0 R "
        result = await extract(pdf_of(drawing(b"(hi) Tj")).replace(b"endobj\ntrailer\n<< ", info))
        assert (result["text"], result["metadata"]) == ("hi", {"author": "me"})

    async def test_a_word_broken_at_the_end_of_a_line_is_whole_again(self, extract: Extract) -> None:
        result = await extract(pdf_of(drawing(rb"(exam-) Tj 0 -15 Td (ple of two) Tj 0 -15 Td (lines\001) Tj")))
        assert result["text"] == "example of two\nlines"

    async def test_pages_without_text_keep_their_place(self, extract: Extract) -> None:
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("Hello", pages=2))))
        writer.insert_blank_page(index=1)
        writer.add_blank_page()
        assert (await extract(saved(writer)))["text"] == "Hello 1\f\fHello 2"

    async def test_a_scan_has_no_text(self, extract: Extract) -> None:
        result = await extract(pdf_of(drawing(b""), pages=3))
        assert (result["text"], result["characters"], result["page_count"]) == ("", 0, 3)
        assert result["needs_ocr"] == [], "there is nothing to recognise"

    @pytest.mark.parametrize(
        ("params", "text", "truncated"),
        [
            ({"max_characters": 9}, "Hello 1\fH", True),
            ({"max_pages": 2}, "Hello 1\fHello 2", True),
            ({"max_characters": 23, "max_pages": 3}, "Hello 1\fHello 2\fHello 3", False),
        ],
    )
    async def test_limits(self, extract: Extract, params: dict[str, int], text: str, *, truncated: bool) -> None:
        result = await extract(pdf("Hello", pages=3), **params)
        assert (result["text"], result["truncated"], result["page_count"]) == (text, truncated, 3)
        assert "\f".join(page["text"] for page in result["pages"]) == text

    async def test_progress_rises_to_one(self, tmp_path: Path) -> None:
        (tmp_path / "document").write_bytes(pdf(pages=250))
        reports: list[float] = []
        await TextProcessor().run(source(tmp_path / "document"), TextParams(), reports.append)
        assert len(reports) == 100
        assert reports == sorted(reports)
        assert reports[-1] == 1

    async def test_lines_and_columns_stay_apart(self, extract: Extract) -> None:
        """Half of a number must not be glued to the number of the next line."""
        table = rb"(Sum) Tj 30 0 Td (VAT) Tj -30 -15 Td (400.01) Tj 60 0 Td (3) Tj -60 -15 Td (600.01) Tj"
        result = await extract(pdf_of(drawing(table)))
        assert result["text"] == "Sum VAT\n400.01\t3\n600.01"

    async def test_what_lies_beyond_the_page_is_left_out(self, extract: Extract) -> None:
        result = await extract(pdf_of(drawing(rb"(seen) Tj 0 500 Td (printed nowhere) Tj")))
        assert result["text"] == "seen"

    async def test_letters_beyond_the_basic_plane_are_all_there(self, extract: Extract) -> None:
        letters = zlib.compress(
            b"begincmap 1 begincodespacerange <00> <ff> endcodespacerange "
            b"2 beginbfchar <68> <D83DDE00> <69> <D83DDE01> endbfchar endcmap"
        )
        mapped = pdf_of(drawing(b"(hi hi) Tj")).replace(b"/BaseFont", b"/ToUnicode 6 0 R /BaseFont")
        head = f"6 0 obj\n<< /Length {len(letters)} /Filter /FlateDecode >>\nstream\n".encode()
        result = await extract(mapped.replace(b"trailer", head + letters + b"\nendstream\nendobj\ntrailer"))
        assert result["text"] == "😀😁 😀😁"

    @pytest.mark.parametrize(
        ("lines", "text"),
        [
            (("an inter-", "esting case"), "an interesting case"),
            (("high-growth, high-", "growth"), "high-growth, high-growth"),
            (("from 2019-", "2020"), "from 2019-\n2020"),
            (("Anne-", "Marie"), "Anne-Marie"),
            (("non-", "judgmental"), "non-judgmental"),
        ],
    )
    async def test_hyphens_stay_where_they_belong_to_the_word(
        self, extract: Extract, lines: tuple[str, ...], text: str
    ) -> None:
        drawn = " 0 -15 Td ".join(f"({line}) Tj" for line in lines)
        assert (await extract(pdf_of(drawing(drawn.encode()))))["text"] == text

    async def test_form_fields_and_notes(self, extract: Extract) -> None:
        result = await extract(filled_form())
        assert result["form"] == [{"name": "name", "value": "Ada"}, {"name": "agreed", "value": "Yes"}]
        assert set(result["text"].split()) == {"Hello", "1", "Ada", "paid"}

    async def test_an_unreadable_page_costs_only_itself(self, extract: Extract) -> None:
        result = await extract(pdf("Hello", pages=3).replace(b"/Kids [4 0 R 6 0 R", b"/Kids [4 0 R 0 0 R"))
        assert (result["text"], result["unreadable_pages"]) == ("Hello 1\f\fHello 3", [2])
        assert [page["characters"] for page in result["pages"]] == [7, 0, 7]

    async def test_words_as_long_as_a_page_cost_no_more(self, extract: Extract) -> None:
        words = b"(x-y ) Tj " + b"(" + b"a" * 30_000 + b") Tj " * 8
        assert (await extract(pdf_of(drawing(words)), by=TextProcessor(cpu_seconds=5)))["characters"] > 0

    async def test_a_page_of_pictures_needs_ocr(self, extract: Extract) -> None:
        picture = b"q 50 0 0 50 9 9 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x00 EI Q"
        result = await extract(pdf_of(zlib.compress(picture)))
        assert (result["needs_ocr"], result["pages"][0]["images"]) == ([1], 1)

    async def test_what_pdfium_cannot_open_is_repaired(self, extract: Extract) -> None:
        broken = pdf().replace(b"%PDF-1.7", b"")
        with pytest.raises(PdfiumError):
            PdfDocument(broken)
        assert (await extract(broken))["text"] == "Hello 1"

    async def test_xmp_and_language(self, extract: Extract) -> None:
        described = pikepdf.open(io.BytesIO(pdf()))
        with described.open_metadata() as xmp:
            xmp["dc:title"], xmp["dc:creator"] = "From XMP", ["Ada", "Grace"]
        described.Root.Lang = "de-CH"
        file = io.BytesIO()
        described.save(file)
        result = await extract(file.getvalue())
        assert result["language"] == "de-CH"
        assert (result["metadata"]["title"], result["metadata"]["author"]) == ("From XMP", "Ada; Grace")


class TestDocx:
    async def test_text(self, extract: Extract) -> None:
        assert await extract(docx("Hello 😀"), DOCX_TYPE) == {
            "text": "Hello 😀",
            "engine": "docx",
            "plain_pages": [],
            "chunks": None,
            "characters": 7,
            "words": 2,
            "truncated": False,
            "language": None,
            "pages": None,
            "page_count": None,
            "unreadable_pages": [],
            "needs_ocr": [],
            "form": [],
            "metadata": {},
        }

    async def test_tables(self, extract: Extract) -> None:
        rows = [["a", "b"], ["", "d"]]
        cells = [[f"<w:tc><w:p>{run_of(text)}</w:p></w:tc>" for text in row] for row in rows]
        table = "".join(f"<w:tr>{''.join(row)}</w:tr>" for row in cells)
        after = "<w:p><w:r><w:t>After</w:t><w:tab/><w:t>tab</w:t><w:br/><w:t>line</w:t></w:r></w:p>"
        body = f"<w:p>{run_of('Before')}</w:p><w:tbl>{table}</w:tbl>{after}"
        assert (await extract(docx_of(body), DOCX_TYPE))["text"] == "Before\na\tb\n\td\nAfter\ttab\nline"

    @pytest.mark.parametrize("target", ["docProps/core.xml", "/docProps/core.xml", "./word/../docProps/core.xml"])
    async def test_metadata(self, extract: Extract, target: str) -> None:
        properties = (
            '<p:coreProperties xmlns:p="urn:p" xmlns:d="urn:d"><!-- by hand --><d:title>Title</d:title>'
            "<d:creator>Me</d:creator><p:created>2024-01-31T02:00:00+02:00</p:created><d:secret>no</d:secret>"
            "</p:coreProperties>"
        )
        relationship = CORE.replace("docProps/core.xml", target)
        result = await extract(docx_of("", {"docProps/core.xml": properties}, relationship), DOCX_TYPE)
        assert result["metadata"] == {"title": "Title", "author": "Me", "created": "2024-01-31T00:00:00Z"}

    async def test_strict(self, extract: Extract) -> None:
        """ISO/IEC 29500 Strict, in which Word saves on request, has other namespaces."""
        document = f'<w:document xmlns:w="{STRICT}/wordprocessingml/main"><w:body><w:p>{run_of("Hi")}</w:p></w:body>'
        main = f'<Relationship Id="main" Type="{STRICT}/relationships/officeDocument" Target="{MAIN}"/>'
        rels = f'<Relationships xmlns="{PACKAGE}">{main}</Relationships>'
        data = docx_of("", {MAIN: f"{document}</w:document>", "_rels/.rels": rels})
        assert (await extract(data, DOCX_TYPE))["text"] == "Hi"

    async def test_relationships_that_lead_nowhere(self, extract: Extract) -> None:
        bookmark = f'<Relationship Id="1" Type="{TRANSITIONAL}/relationships/hyperlink" Target="#_bookmark"/>'
        entries = {"word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{bookmark}</Relationships>'}
        result = await extract(docx_of(f"<w:p>{run_of('Hi')}</w:p>", entries, CORE), DOCX_TYPE)
        assert (result["text"], result["metadata"]) == ("Hi", {})

    async def test_what_is_visible_and_only_that(self, extract: Extract) -> None:
        body = (
            f"<w:sdt><w:sdtContent><w:p>{run_of('control')}</w:p></w:sdtContent></w:sdt>"
            f"<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr>{run_of('tabs')}</w:p>"
            f"<w:p><w:ins>{run_of('inserted')}</w:ins><w:moveFrom>{run_of('moved')}</w:moveFrom>"
            "<w:del><w:r><w:tab/><w:delText>deleted</w:delText></w:r></w:del></w:p>"
            f"<w:p><mc:AlternateContent><mc:Choice Requires='wps'>{run_of('box')}</mc:Choice>"
            f"<mc:Fallback>{run_of('box')}</mc:Fallback></mc:AlternateContent></w:p><w:p/><w:p/>"
        )
        assert (await extract(docx_of(body), DOCX_TYPE))["text"] == "control\ntabs\ninserted\nbox"

    async def test_notes_headers_footers_and_comments(self, extract: Extract) -> None:
        parts = ("comments", "footer", "footnotes", "header", "endnotes")
        related = "".join(
            f'<Relationship Id="{each}" Type="{TRANSITIONAL}/relationships/{each}" Target="{each}1.xml"/>'
            for each in parts
        )
        entries = {
            f"word/{each}1.xml": f"<w:{each} {NAMESPACES}><w:p>{run_of(f'the {each}')}</w:p></w:{each}>"
            for each in parts
        }
        rels = {"word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{related}</Relationships>'}
        result = await extract(docx_of(f"<w:p>{run_of('the body')}</w:p>", entries | rels), DOCX_TYPE)
        assert result["text"].splitlines() == [
            *("the header", "the body", "the footer", "the footnotes", "the endnotes", "the comments"),
        ]
        broken = docx_of(f"<w:p>{run_of('the body')}</w:p>", entries | rels | {"word/header1.xml": "<w:p"})
        assert "the footer" in (await extract(broken, DOCX_TYPE))["text"]

    async def test_labels_of_lists(self, extract: Extract) -> None:
        def item(text: str, level: int = 0, number: int = 1) -> str:
            place = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
            return f"<w:p><w:pPr>{place}</w:pPr>{run_of(text)}</w:p>"

        levels = "".join(
            f'<w:lvl w:ilvl="{n}"><w:start w:val="1"/><w:numFmt w:val="{kind}"/><w:lvlText w:val="{text}"/></w:lvl>'
            for n, (kind, text) in enumerate([("decimal", "%1."), ("lowerLetter", "%1.%2)"), ("bullet", "\uf0b7")])
        )
        numbering = (
            f'<w:numbering {NAMESPACES}><w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
            '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
        )
        related = f'<Relationship Id="n" Type="{TRANSITIONAL}/relationships/numbering" Target="numbering.xml"/>'
        entries = {
            "word/numbering.xml": numbering,
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{related}</Relationships>',
        }
        body = item("one") + item("a", 1) + item("b", 1) + item("dot", 2) + item("two") + item("a again", 1)
        lines = (await extract(docx_of(body, entries), DOCX_TYPE))["text"].splitlines()
        assert lines == ["1.\tone", "1.a)\ta", "1.b)\tb", "•\tdot", "2.\ttwo", "2.a)\ta again"]

    async def test_boxes_symbols_controls_and_what_is_hidden(self, extract: Extract) -> None:
        def box(state: str) -> str:
            field = f'<w:ffData><w:checkBox><w:default w:val="{state}"/></w:checkBox></w:ffData>'
            return f"<w:r><w:fldChar>{field}</w:fldChar></w:r>"

        body = (
            f"<w:p>{box('1')}{box('0')}<w:r><w:sym w:font='Wingdings' w:char='F0FE'/></w:r>"
            "<w:r><w:sym w:font='Symbol' w:char='F057'/></w:r>"
            f"<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r></w:p>"
            f"<w:sdt><w:sdtPr><w:alias w:val='Customer'/></w:sdtPr><w:sdtContent><w:p>{run_of('Ada')}</w:p>"
            "</w:sdtContent></w:sdt>"
        )
        result = await extract(docx_of(body), DOCX_TYPE)
        assert result["text"] == "☒☐☑Ω\nAda"
        assert result["form"] == [{"name": "Customer", "value": "Ada"}]

    async def test_a_document_included(self, extract: Extract) -> None:
        related = f'<Relationship Id="r1" Type="{TRANSITIONAL}/relationships/aFChunk" Target="part.docx"/>'
        body = f"<w:p>{run_of('before')}</w:p><w:altChunk r:id='r1' xmlns:r='urn:r'/><w:p>{run_of('behind')}</w:p>"
        entries = {"word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{related}</Relationships>'}
        whole = ZipFile(io.BytesIO(docx_of(body, entries)))
        parts = {name: whole.read(name) for name in whole.namelist()} | {"word/part.docx": docx("within")}
        assert (await extract(zipped(parts), DOCX_TYPE))["text"] == "before\nwithin\nbehind"

    async def test_what_stands_within_a_paragraph_has_its_own_line(self, extract: Extract) -> None:
        box = f"<w:pict><w:txbxContent><w:p>{run_of('inside')}</w:p></w:txbxContent></w:pict>"
        body = f"<w:p>{run_of('be')}{run_of('fore')}<w:r>{box}</w:r>{run_of('after')}</w:p>"
        result = await extract(docx_of(body), DOCX_TYPE)
        assert (result["text"], result["words"]) == ("before\ninside\nafter", 3)

    async def test_charts_and_smart_art(self, extract: Extract) -> None:
        related = "".join(
            f'<Relationship Id="{id_}" Type="{TRANSITIONAL}/relationships/{kind}" Target="{kind}.xml"/>'
            for id_, kind in (("c", "chart"), ("d", "diagramData"))
        )
        cache = "<c:strCache><c:pt><c:v>{}</c:v></c:pt></c:strCache>"
        entries = {
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{related}</Relationships>',
            "word/chart.xml": f"<c:chart xmlns:c='urn:c' xmlns:a='urn:a'><a:t>Sales</a:t>{cache.format('North')}"
            f"{cache.format('North')}<c:numCache><c:v>7</c:v></c:numCache></c:chart>",
            "word/diagramData.xml": "<d:data xmlns:d='urn:d' xmlns:a='urn:a'><a:t>Plan</a:t><a:t>Do</a:t></d:data>",
        }
        drawn = "<c:chart xmlns:c='urn:c' r:id='c' {0}/><d:relIds xmlns:d='urn:d' r:dm='d' {0}/>".format(
            "xmlns:r='urn:r'"
        )
        body = f"<w:p>{run_of('before')}<w:r><w:drawing>{drawn}</w:drawing></w:r></w:p><w:p>{run_of('after')}</w:p>"
        text = (await extract(docx_of(body, entries), DOCX_TYPE))["text"]
        assert [line for line in text.splitlines() if line] == ["before", "Sales", "North", "Plan", "Do", "after"]

    async def test_of_ruby_the_base_and_not_how_it_is_pronounced(self, extract: Extract) -> None:
        ruby = f"<w:ruby><w:rt>{run_of('kanji')}</w:rt><w:rubyBase>{run_of('漢字')}</w:rubyBase></w:ruby>"
        assert (await extract(docx_of(f"<w:p><w:r>{ruby}</w:r></w:p>"), DOCX_TYPE))["text"] == "漢字"

    async def test_an_attribute_of_eleven_million_characters(self, extract: Extract) -> None:
        body = f"<w:p w:rsidR='{'x' * 11_000_000}'>{run_of('Hi')}</w:p>"
        assert (await extract(docx_of(body), DOCX_TYPE))["text"] == "Hi"

    async def test_numbering_that_is_none(self, extract: Extract) -> None:
        related = f'<Relationship Id="n" Type="{TRANSITIONAL}/relationships/numbering" Target="numbering.xml"/>'
        level = '<w:lvl w:ilvl="--5"><w:start w:val="x"/><w:lvlText w:val="%1"/></w:lvl>'
        numbering = f'<w:abstractNum w:abstractNumId="0">{level}</w:abstractNum><w:num/><w:num w:numId="1"/>'
        entries = {
            "word/numbering.xml": f"<w:numbering {NAMESPACES}>{numbering}</w:numbering>",
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{related}</Relationships>',
            "word/styles.xml": "not XML",
        }
        assert (await extract(docx_of(f"<w:p>{run_of('Hi')}</w:p>", entries), DOCX_TYPE))["text"] == "Hi"

    async def test_deep_xml(self, extract: Extract) -> None:
        deep = "<w:ins>" * 999 + run_of("Hi") + "</w:ins>" * 999
        assert (await extract(docx_of(f"<w:p>{deep}</w:p>"), DOCX_TYPE))["text"] == "Hi"

    async def test_limit(self, extract: Extract) -> None:
        result = await extract(docx_of(f"<w:p>{run_of('word')}</w:p>" * 10_000), DOCX_TYPE, max_characters=7)
        assert (result["text"], result["truncated"]) == ("word\nwo", True)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\r\nb\rc\u2028d\x0be\x85f", "a\nb\nc\nd\ne\nf"),
        ("\x00\x01\x1b[31m\x7f\x9f\ufffe\uffff", "[31m"),
        ("\ud83d \ude00 😀\ttab", "  😀\ttab"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert output.clean(text) == cleaned


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("D:20240131120005+02'30'", "2024-01-31T09:30:05Z"),
        ("D:20240131120005-02'00", "2024-01-31T14:00:05Z"),
        ("D:20240131120005Z00'00'", "2024-01-31T12:00:05Z"),
        ("D:202402", "2024-02-01T00:00:00Z"),
        ("2024", "2024-01-01T00:00:00Z"),
        ("D:20240231", None),
        ("D:00010101000000+14'00'", None),
        ("last year", None),
        ("", None),
    ],
)
def test_dates(stated: str, meant: str | None) -> None:
    assert output.tidy({"created": stated}.get, pdf_date).get("created") == meant


class TestBadDocuments:
    @pytest.mark.parametrize(
        ("data", "kind", "code"),
        [
            pytest.param(encrypted_pdf("secret"), PDF_TYPE, "password-protected", id="password"),
            pytest.param(certified_pdf(), PDF_TYPE, "unsupported-encryption", id="certificate"),
            pytest.param(b"%PDF-1.7\n" + bytes(range(256)) * 20, PDF_TYPE, "malformed-document", id="noise"),
            pytest.param(b"", PDF_TYPE, "malformed-document", id="empty"),
            pytest.param(docx()[:-100], DOCX_TYPE, "malformed-document", id="half-zip"),
            pytest.param(docx_of("<w:p>"), DOCX_TYPE, "malformed-document", id="half-xml"),
            pytest.param(docx_of("", {"_rels/.rels": "<r/>"}), DOCX_TYPE, "malformed-document", id="no-main-part"),
            pytest.param(pdf(), DOCX_TYPE, "malformed-document", id="other-type"),
        ],
    )
    async def test_typed_failure(self, extract: Extract, data: bytes, kind: str, code: str) -> None:
        assert await failure(extract(data, kind)) == (Permanent, code)

    async def test_depth_in_a_pdf_is_harmless(self, extract: Extract) -> None:
        assert (await extract(pdf_of(zlib.compress(b"[" * MiB + b"<<" * MiB))))["text"] == ""

    @limits_memory
    async def test_pdf_that_inflates_beyond_memory(self, extract: Extract) -> None:
        packer = zlib.compressobj(1)
        inner = b"".join(packer.compress(bytes(MiB)) for _ in range(256)) + packer.flush()
        bomb = extract(pdf_of(zlib.compress(inner), "/FlateDecode /FlateDecode"), by=TextProcessor(memory=128 * MiB))
        assert await failure(bomb) == (Permanent, "text-out-of-memory")

    @limits_memory
    async def test_docx_that_inflates_beyond_memory(self, extract: Extract) -> None:
        paragraph = f"<w:p>{run_of('word')}</w:p>"
        bomb = docx_of(paragraph * (150 * MiB // len(paragraph)))
        parsing, inflating = TextProcessor(), TextProcessor(memory=128 * MiB)
        assert await failure(extract(bomb, DOCX_TYPE, by=parsing)) == (Permanent, "text-out-of-memory")
        assert await failure(extract(bomb, DOCX_TYPE, by=inflating)) == (Permanent, "text-out-of-memory")

    async def test_too_much_computing(self, extract: Extract) -> None:
        slow = extract(endless_pdf(), by=TextProcessor(cpu_seconds=1))
        assert await failure(slow) == (Permanent, "text-timeout")

    async def test_gone(self, tmp_path: Path) -> None:
        run = TextProcessor().run(source(tmp_path / "gone"), TextParams(), lambda _: None)
        assert await failure(run) == (Transient, "text-unavailable")


class TestBadChildren:
    @pytest.mark.parametrize(
        ("program", "kind", "code"),
        [
            ("signal.raise_signal(signal.SIGSEGV)", Permanent, "text-crashed"),
            ("signal.raise_signal(signal.SIGILL)", Permanent, "text-crashed"),
            ("os.abort()", Permanent, "text-out-of-memory"),
            ("signal.raise_signal(signal.SIGKILL)", Transient, "text-unavailable"),
            (f"{DIES}; signal.raise_signal(signal.SIGTERM)", Transient, "text-unavailable"),
            ("raise ImportError", Transient, "text-unavailable"),
            ("", Transient, "text-unavailable"),
            ("print('x', end='')", Transient, "text-unavailable"),
            ("while True: print('x' * 65536, end='')", Permanent, "text-too-large"),
            ("""while True: print('{"text": "xx"}')""", Permanent, "text-too-large"),
        ],
    )
    async def test_end_without_an_answer(
        self, extract: Extract, scripted: Scripted, program: str, kind: type[ProcessingError], code: str
    ) -> None:
        assert await failure(extract(by=scripted(program), max_characters=1)) == (kind, code)

    @pytest.mark.parametrize(
        "output",
        [
            "noise",
            "[]",
            '{"error": "made-up"}',
            '{"progress": 1e999}',
            '{"progress": 2}',
            '{"result": {"pages": "1", "truncated": false, "metadata": {}}}',
            '{"result": {"pages": 1, "truncated": false, "metadata": {}, "more": 1}}',
            '{"text": "\\u0000"}',
            '{"text": "\\ud800"}',
            '{"result": {"pages": 1, "truncated": false, "metadata": {"title": "\\u0000"}}}',
        ],
    )
    async def test_lies(self, extract: Extract, scripted: Scripted, output: str) -> None:
        assert await failure(extract(by=scripted(f"print({output!r})"))) == (Permanent, "text-crashed")

    async def test_endless_lines(self, tmp_path: Path, scripted: Scripted) -> None:
        (tmp_path / "document").touch()
        reports: list[float] = []
        params = TextParams(max_characters=1)
        chatter = scripted(f"while True: {PROGRESS}").run(source(tmp_path / "document"), params, reports.append)
        assert await failure(chatter) == (Permanent, "text-crashed")
        assert len(reports) == MAX_LINES

    @pytest.mark.usefixtures("unconfined")
    async def test_gets_the_document_and_nothing_else(
        self, extract: Extract, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JWT_SECRET", "secret")
        tell = scripted(
            "known = {'document': sys.stdin.read(), 'folder': os.getcwd(), 'open': str(os.listdir('/dev/fd')[:3]),\n"
            "         'group': str(os.getpgrp() == os.getpid()), 'secret': os.environ.get('JWT_SECRET', 'unknown')}\n"
            "print(json.dumps({'result': {'engine': 'docx', 'plain_pages': [], 'pages': [],\n"
            "                             'page_count': 0, 'words': 0, 'truncated': False,\n"
            "                             'form': [], 'language': None, 'metadata': known}}))"
        )
        known = {"document": "bytes", "folder": "/", "secret": "unknown", "group": "True", "open": "['0', '1', '2']"}
        assert (await extract(b"bytes", by=tell))["metadata"] == known


def gone(pid: int, within: float = 10) -> bool:
    """Whether the process ends in time. A zombie has ended: not every container has an init that buries orphans."""

    def alive() -> bool:
        try:
            os.kill(pid, 0)
            return sys.platform != "linux" or ") Z " not in Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    deadline = time.monotonic() + within
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive()


def children() -> str:
    """The pids of this thread's child processes."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


@pytest.mark.usefixtures("unconfined")
class TestNothingIsLeft:
    @pytest.fixture
    def family(self, tmp_path: Path) -> str:
        """A child that starts a child, notes both, and hangs with it."""
        path = tmp_path / "pids"
        note = f"open({str(path)!r}, 'w').write(f'{{os.getpid()}} {{other}}')"
        return f"other = os.fork()\nif other:\n    {note}\n    {PROGRESS}\ntime.sleep(60)"

    async def test_cancelled(self, tmp_path: Path, scripted: Scripted, family: str) -> None:
        await cancelled(scripted(family), tmp_path)

    def test_cancelled_on_the_loop_that_uvicorn_uses(self, tmp_path: Path, scripted: Scripted, family: str) -> None:
        uvloop.run(cancelled(scripted(family), tmp_path))

    async def test_timed_out(self, tmp_path: Path, extract: Extract, scripted: Scripted, family: str) -> None:
        assert await failure(extract(by=scripted(family, seconds=1))) == (Permanent, "text-timeout")
        assert all(map(gone, map(int, (tmp_path / "pids").read_text().split())))

    @linux_only
    async def test_cancelled_at_any_moment(self, extract: Extract, scripted: Scripted) -> None:
        before = children()
        for turns in range(20):
            task = asyncio.create_task(extract(by=scripted("time.sleep(60)")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert children() == before

    @linux_only
    async def test_cancelled_as_it_is_ended(
        self, extract: Extract, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = children()
        task = asyncio.create_task(extract(by=scripted(f"{PROGRESS}\n" * 2000 + "time.sleep(60)")))  # too many lines
        kill = os.killpg

        def cancelling(group: int, number: int) -> None:
            with suppress(ProcessLookupError):
                kill(group, number)
            asyncio.get_running_loop().call_soon(task.cancel)

        monkeypatch.setattr(os, "killpg", cancelling)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == before

    @linux_only
    def test_parent_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "document"
        path.write_bytes(endless_pdf())
        command = [sys.executable, "-c", PARENT, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=SAMPLES.parent.parent) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert not gone(child, within=0)
            parent.kill()
        assert gone(child)


async def cancelled(processor: TextProcessor, folder: Path) -> None:
    (folder / "document").touch()
    started = asyncio.Event()
    task = asyncio.create_task(processor.run(source(folder / "document"), TextParams(), lambda _: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    child, grandchild = map(int, (folder / "pids").read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert gone(grandchild)
