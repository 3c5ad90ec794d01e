"""Markdown, against golden files and read back by another program: it has the words of the text, and no others."""

import io
import json
import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import given, settings, strategies as st
from lxml import html
from markdown_it import MarkdownIt

from app.processors.text import pdf_markdown
from app.processors.text.docx import Walk
from app.processors.text.docx_markdown import MarkdownWalk
from app.processors.text.markdown import Run, inline, linkable, paragraph, table
from app.processors.text.output import Form
from app.processors.text.package import Package
from app.processors.text.processor import TextProcessor
from tests.support import wordprocessing as word
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, pdf
from tests.unit.test_text_processor import SAMPLES, drawing, pdf_of, source

UNHURRIED = settings(deadline=None)  # other processes compute, too
GOLDEN = Path(__file__).parents[1] / "golden"
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HAS_LITEPARSE = find_spec(pdf_markdown.OPTIONAL) is not None
needs_liteparse = pytest.mark.skipif(not HAS_LITEPARSE, reason="liteparse is not installed")
texts = st.text(st.sampled_from("*_`[]()<>#-+=|~&!\\:;.1a é\t\n\"'") | st.characters(categories=["L", "P", "S"]))
links = st.sampled_from(["", "", "https://example.com/"])
runs = st.lists(st.builds(Run, texts, st.booleans(), st.booleans(), links, note=st.just(0)))


def walked(kind: type[Walk], data: bytes) -> str:
    with ZipFile(io.BytesIO(data)) as archive:
        return "".join(kind(Package(archive), Form()).document()).strip("\n")


def markdown_of(data: bytes) -> str:
    return walked(MarkdownWalk, data)


def shown(markdown: str) -> str:
    """What a reader of Markdown shows."""
    return html.fromstring(f"<div>{READER.render(markdown)}</div>").text_content()


def unmarked(markdown: str) -> str:
    """Markdown without line breaks in cells, targets of links, references to notes, emphasis and backslashes."""
    apart = re.sub(r"<br>|\]\((?:https?|mailto):\S*?\)|\[\^\d+\]", " ", markdown)
    return re.sub(r"[\\*]", "", apart)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def letters(text: str) -> str:
    return "".join(text.split())


async def made(path: Path, kind: str, **params: Any) -> dict[str, Any]:
    processor = TextProcessor()
    return await processor.run(source(path, kind), processor.params(**params), lambda _: None)


def test_golden_docx() -> None:
    assert markdown_of(word.everything()) + "\n" == (GOLDEN / "everything.md").read_text()


async def test_golden_samples() -> None:
    of_docx = await made(SAMPLES / "sample.docx", DOCX_TYPE, format="markdown")
    assert (of_docx["engine"], of_docx["text"] + "\n") == ("docx", (GOLDEN / "sample.docx.md").read_text())


async def test_golden_pdf() -> None:
    result = await made(SAMPLES / "sample.pdf", PDF_TYPE, format="markdown")
    golden = "sample.pdf.liteparse.md" if HAS_LITEPARSE else "sample.pdf.md"
    assert result["text"] + "\n" == (GOLDEN / golden).read_text()
    assert (result["engine"], result["plain_pages"]) == ("liteparse" if HAS_LITEPARSE else "pdfium", [])
    first, second = result["pages"]
    assert result["text"] == f"{first['text']}\n\n{second['text']}"


@pytest.mark.parametrize("data", [word.everything(), (SAMPLES / "sample.docx").read_bytes()], ids=["all", "sample"])
def test_words_are_those_of_the_text(data: bytes) -> None:
    assert Counter(words(unmarked(markdown_of(data)))) == Counter(words(walked(Walk, data)))


@UNHURRIED
@given(runs)
def test_text_stays_text(said: list[Run]) -> None:
    written = "".join(run.text for run in said)
    assert letters(shown(paragraph(inline(said)))) == letters(written)


@UNHURRIED
@given(texts, texts)
def test_cells_stay_cells(first: str, second: str) -> None:
    cells = [inline([Run(text)]).replace("\n", "<br>") for text in (first, second)]
    page = html.fromstring(f"<div>{READER.render(table([['a', 'b'], cells]))}</div>")
    assert [letters(each.text_content()) for each in page.iterfind(".//td")] == [letters(first), letters(second)]


@UNHURRIED
@given(
    texts,
    st.sampled_from([{"style": "H1"}, {"properties": '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>'}]),
)
def test_headings_and_items_stay_one(text: str, kind: dict[str, str]) -> None:
    data = word.document(word.paragraph(word.run(text), **kind) + word.paragraph("end"))
    assert letters(shown(markdown_of(data))) == letters(text) + "end"


def test_targets_of_links() -> None:
    assert linkable("https://example.com/a b(c)|<d>") == "https://example.com/a%20b%28c%29%7C%3Cd%3E"
    assert linkable("mailto:a@example.com") == "mailto:a@example.com"
    assert [linkable(url) for url in ("javascript:alert(1)", "file:///etc/passwd", "", "https://" + "x" * 2000)] == [
        ""
    ] * 4


def test_hostile_numbers_cost_nothing() -> None:
    wide = '<w:gridSpan w:val="999999999"/>'
    row = word.table((word.cell(word.paragraph("x"), properties=wide),))
    assert len(markdown_of(word.document(row * 100))) < 100_000
    spaces = word.paragraph(word.run("a" + " " * 500_000 + "b" + "#" * 100_000 + "c"), style="H1")
    assert words(markdown_of(word.document(spaces))) == ["a", "b", "c"]
    breaks = word.paragraph(*["<w:r><w:t>-</w:t><w:br/></w:r>"] * 20_000)
    assert markdown_of(word.document(breaks)).count("\\-") == 20_000


async def test_limit(tmp_path: Path) -> None:
    (tmp_path / "document").write_bytes(docx("*" * 100))
    result = await made(tmp_path / "document", DOCX_TYPE, format="markdown", max_characters=9)
    assert (result["text"], result["truncated"]) == ("\\*\\*\\*\\*\\", True)


class TestPdf:
    """Without liteparse, and with one that fails: in this process, where it can be replaced."""

    def read(self, data: bytes, capsysbinary: pytest.CaptureFixture[bytes]) -> tuple[str, dict[str, Any]]:
        result = pdf_markdown.read(io.BytesIO(data), 10_000, 100)
        lines = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
        return "".join(line.get("text", "") for line in lines), result

    def with_pages(self, monkeypatch: pytest.MonkeyPatch, *pages: str | BaseException) -> None:
        """Installs a liteparse that makes these pages, up to an error."""

        def batches(*_: object) -> Any:
            for number, page in enumerate(pages, 1):
                if isinstance(page, BaseException):
                    raise page
                found = [SimpleNamespace(page_num=number, markdown=page)] if page else []
                yield SimpleNamespace(result=SimpleNamespace(pages=found))

        module = ModuleType("liteparse")
        module.LiteParse = lambda **_: SimpleNamespace(parse_batches=batches)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "liteparse", module)

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        monkeypatch.setitem(sys.modules, "liteparse", None)
        text, result = self.read(pdf("# *Hello*", pages=2), capsysbinary)
        assert text == "## Page 1\n\n\\# \\*Hello\\* 1\n\n## Page 2\n\n\\# \\*Hello\\* 2"
        assert (result["engine"], result["plain_pages"]) == ("pdfium", [])

    def test_a_page_that_is_not_the_same_is_plain(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        self.with_pages(monkeypatch, "# Hello 1", "", "Hello 3 and more", "**Hello** 4")
        text, result = self.read(pdf(pages=4), capsysbinary)
        assert text == "# Hello 1\n\n## Page 2\n\nHello 2\n\n## Page 3\n\nHello 3\n\n**Hello** 4"
        assert (result["engine"], result["plain_pages"]) == ("liteparse", [2, 3])

    def test_a_panic_costs_only_the_pages_behind(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        self.with_pages(monkeypatch, "Hello 1", BaseException("a panic"))
        text, result = self.read(pdf(pages=3), capsysbinary)
        assert text == "Hello 1\n\n## Page 2\n\nHello 2\n\n## Page 3\n\nHello 3"
        assert result["plain_pages"] == [2, 3]

    def test_what_is_too_much_for_memory_is_not_hidden(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        self.with_pages(monkeypatch, MemoryError())
        with pytest.raises(MemoryError):
            self.read(pdf(), capsysbinary)

    def test_html_and_links_in_the_text_are_text(
        self, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        self.with_pages(monkeypatch, "Hello <b>[x](javascript:y)&lt; 1")
        text, _ = self.read(pdf("Hello <b>[x](javascript:y)&lt;"), capsysbinary)
        assert text == "Hello \\<b>\\[x\\](javascript:y)\\&lt; 1"

    @needs_liteparse
    async def test_a_table_in_the_confined_child(self, tmp_path: Path) -> None:
        cells = [("Item", "Price"), ("Apple", "1.50"), ("Pear", "2.25"), ("Plum", "3.75")]
        drawn = b"".join(
            f"1 0 0 1 72 {700 - 20 * n} Tm ({a}) Tj 1 0 0 1 250 {700 - 20 * n} Tm ({b}) Tj ".encode()
            for n, (a, b) in enumerate(cells)
        )
        lines = b" ".join(f"70 {715 - 20 * n} m 350 {715 - 20 * n} l S".encode() for n in range(5))
        lines += b" " + b" ".join(f"{x} 715 m {x} 635 l S".encode() for x in (70, 240, 350))
        content = drawing(drawn + b"ET " + lines + b" BT")
        (tmp_path / "document").write_bytes(pdf_of(content).replace(b"[0 0 99 99]", b"[0 0 600 800]"))
        result = await made(tmp_path / "document", PDF_TYPE, format="markdown")
        assert (result["engine"], result["plain_pages"]) == ("liteparse", [])
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result["text"].splitlines()]
        assert [tuple(row) for row in rows if len(row) == 2 and "-" not in row[0]] == cells
