"""How results are shown on the page of a document."""

import gzip
import re
from pathlib import Path
from unittest.mock import patch

from app.console.documents import markdown, results
from tests.support import wordprocessing
from tests.support.console import Browser, Seen, worked
from tests.support.factories import DOCX_TYPE, MAIN, docx_with, pdf

WORDS = "Of <b>many</b> words & more. "


def test_markdown_is_shown_as_what_it_says(ada: Browser) -> None:
    form = {"data": {"process": "text", "process_params": '{"format": "markdown"}'}}
    file = ("all.docx", wordprocessing.everything(), DOCX_TYPE)
    answer = ada.send("POST", "/console/documents", **form, files={"file": file})
    own = answer.headers["location"].rpartition("/")[2]
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}").text
    shown = page[page.index('class="document"') : page.index('-text" hidden>')]
    assert re.search(r"<h4>\s*Annual report", shown)
    assert {
        "<h5>",
        "<ol start=",
        "<ul>",
        '<th scope="col">',
        "<strong>",
        "<em>",
        'rel="noopener noreferrer nofollow"',
    } <= set(re.findall(r"<h5>|<ol start=|<ul>|<th scope=\"col\">|<strong>|<em>|rel=\"[a-z ]*\"", shown))


def test_markdown_of_strangers() -> None:
    [paragraph] = markdown.blocks('[a](javascript:alert(1)) [b](https://x.example/"onclick=) <b>c</b> **d')
    assert [span.link for span in paragraph.line if span.link] == ['https://x.example/"onclick=']
    assert "".join(span.text for span in paragraph.line) == "[a](javascript:alert(1)) b <b>c</b> **d"
    [code] = markdown.blocks("```\n# a\n")
    assert (code.kind, code.text) == ("code", "# a\n")
    deep = "\n".join("  " * depth + "- a" for depth in range(50))
    assert markdown.blocks(deep)[0].kind == "list"
    assert [each.number for each in markdown.blocks("### a\n# b\n##### c")] == [1, 1, 2]
    table = markdown.blocks("| a | b |\n| --- | --- |\n| **1** \\| 2 |")[0]
    assert [["".join(span.text for span in cell) for cell in row] for row in table.rows] == [["a", "b"], ["1 | 2"]]
    kinds = [each.kind for each in markdown.blocks("a\n- b\n\nc\n\n***\nd")]
    assert kinds == ["paragraph", "list", "paragraph", "rule", "paragraph"]
    broken = markdown.blocks("a\\\nb  \nc\nd")[0]
    assert [span.text for span in broken.line] == ["a", "", "b", "", "c d"]


def test_lists_of_objects_are_tables(ada: Browser) -> None:
    own = ada.upload(content=pdf("Invoice of words"), process="text")
    worked(ada, own)
    ada.post(f"/console/documents/{own}/process", processor="keywords")
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}").text
    assert re.search(r"<th scope=\"col\">word</th>\t<th scope=\"col\">count</th>", page)
    assert re.search(r"<td>Invoice</td>\t<td>1</td>", page)
    copied = Seen(page).attributes("button", "data-copy")
    assert len(copied) > 3
    assert set(copied) <= {each["id"] for _, each in Seen(page).tags if "id" in each}


def read(browser: Browser, text: str, params: str = "{}") -> str:
    """The page of a document of this text, once that was read."""
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    body = f'<w:document xmlns:w="{namespace}"><w:body><w:p><w:r><w:t>{escaped}</w:t></w:r></w:p></w:body></w:document>'
    file = ("a.docx", docx_with({MAIN: body.encode()}), DOCX_TYPE)
    form = {"data": {"process": "text", "process_params": params}, "files": {"file": file}}
    here = browser.send("POST", "/console/documents", **form).headers["location"]
    worked(browser, here.rpartition("/")[2])
    return here


def test_of_a_large_one_the_beginning_is_shown(ada: Browser) -> None:
    for params in ("{}", '{"format": "markdown"}'):
        here = read(ada, WORDS * 10_000, params)
        for page in (ada.get(here), ada.get(f"{here}/files/1")):
            seen = Seen(page.text)
            assert 500 < seen.text.count("many") < 8000
            assert "this is only its beginning" in seen.text
            whole = next(each for each in seen.attributes("a", "href") if "/results/text" in each)
            assert len(ada.get(whole).content) > 10_000 * len(WORDS)


def test_of_a_large_one_without_text_the_json_is_shown(ada: Browser) -> None:
    here = read(ada, WORDS * 10_000)
    with patch.object(results, "text_in", lambda _: None):
        seen = Seen(ada.get(here).text)
    assert '{"text":"Of <b>many' in seen.text
    assert "this is only its beginning" in seen.text


def test_one_that_is_not_there_leaves_the_page_as_it_is(ada: Browser) -> None:
    here = read(ada, WORDS * 10_000)
    files = Path(ada.process.services.settings.data_dir) / "files"
    for path in files.rglob("*"):
        if path.is_file() and path.read_bytes()[:2] == gzip.compress(b"")[:2]:
            path.unlink()
    page = ada.get(here)
    assert (page.status_code, "It cannot be read now" in page.text) == (200, True)
