import asyncio
import io
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pypdf import PdfReader, PdfWriter

import app
from app.processors import text_child
from app.processors.base import Permanent, ProcessingError, Source, Transient
from app.processors.text import MAX_LINES, TextParams, TextProcessor
from tests.support.factories import DOCX_TYPE, MAIN, PDF_TYPE, docx, docx_with, encrypted_pdf, pdf

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
NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
PROGRESS = """print('{"progress": 0.5}', flush=True)"""
# Has the file named by its argument read, and says the reader's pid once it is at it.
PARENT = """
import asyncio, os, sys
from pathlib import Path
from app.processors.base import Source
from app.processors.text import TextParams, TextProcessor

source = Source(Path(sys.argv[1]), "application/pdf", 0, "", 1)
child = Path(f"/proc/self/task/{os.getpid()}/children")
asyncio.run(TextProcessor().run(source, TextParams(), lambda _: print(child.read_text(), flush=True)))
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc, or what only Linux offers")
limits_memory = pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit memory")

Extract = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
Scripted = Callable[..., TextProcessor]


def source(path: Path, kind: str = PDF_TYPE) -> Source:
    return Source(path=path, content_type=kind, size=0, sha256="", attempt=1)


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Runs a processor, with the params given, on a file of these bytes."""

    async def run(
        data: bytes = b"", kind: str = PDF_TYPE, by: TextProcessor | None = None, **params: int
    ) -> dict[str, Any]:
        path = tmp_path / "document"
        path.write_bytes(data)
        return await (by or TextProcessor()).run(source(path, kind), TextParams(**params), lambda _: None)

    return run


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """Makes processors whose child runs another program."""

    def make(program: str, seconds: float = 60) -> TextProcessor:
        path = tmp_path / "script.py"
        path.write_text(f"import json, os, signal, sys, time\n{program}")
        return TextProcessor(script=path, seconds=seconds)

    return make


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
            "pages": 3,
            "characters": 23,
            "truncated": False,
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
        assert (result["text"], result["characters"], result["pages"]) == ("", 0, 3)

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
        assert (result["text"], result["truncated"], result["pages"]) == (text, truncated, 3)

    async def test_progress_rises_to_one(self, tmp_path: Path) -> None:
        (tmp_path / "document").write_bytes(pdf(pages=250))
        reports: list[float] = []
        await TextProcessor().run(source(tmp_path / "document"), TextParams(), reports.append)
        assert len(reports) == 100
        assert reports == sorted(reports)
        assert reports[-1] == 1


class TestDocx:
    async def test_text(self, extract: Extract) -> None:
        assert await extract(docx("Hello 😀"), DOCX_TYPE) == {
            "text": "Hello 😀",
            "pages": None,
            "characters": 7,
            "truncated": False,
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
    assert text_child.clean(text) == cleaned


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
    assert text_child.tidy({"created": stated}.get, text_child.pdf_date).get("created") == meant


class TestBadDocuments:
    @pytest.mark.parametrize(
        ("data", "kind", "code"),
        [
            pytest.param(encrypted_pdf("secret"), PDF_TYPE, "password-protected", id="password"),
            pytest.param(b"%PDF-1.7\n" + bytes(range(256)) * 20, PDF_TYPE, "malformed-document", id="noise"),
            pytest.param(b"", PDF_TYPE, "malformed-document", id="empty"),
            pytest.param(pdf_of(b"", count=900_000), PDF_TYPE, "malformed-document", id="too-few-pages"),
            pytest.param(docx()[:-100], DOCX_TYPE, "malformed-document", id="half-zip"),
            pytest.param(docx_of("<w:p>"), DOCX_TYPE, "malformed-document", id="half-xml"),
            pytest.param(docx_of("<w:p>" * 999 + "</w:p>" * 999), DOCX_TYPE, "malformed-document", id="deep-xml"),
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
            (f"{NO_CORE}; os.kill(os.getpid(), signal.SIGSEGV)", Permanent, "text-crashed"),
            (f"{NO_CORE}; os.kill(os.getpid(), signal.SIGILL)", Permanent, "text-crashed"),
            ("os.kill(os.getpid(), signal.SIGKILL)", Transient, "text-unavailable"),
            ("os.kill(os.getpid(), signal.SIGTERM)", Transient, "text-unavailable"),
            ("raise ImportError", Transient, "text-unavailable"),
            ("", Transient, "text-unavailable"),
            ("print('x', end='')", Transient, "text-unavailable"),
            ("while True: print('x' * 65536, end='')", Permanent, "text-too-large"),
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
            '{"result": {"text": "", "pages": "1", "truncated": false, "metadata": {}}}',
            '{"result": {"text": "", "pages": 1, "truncated": false, "metadata": {}, "more": 1}}',
            '{"result": {"text": "\\u0000", "pages": 1, "truncated": false, "metadata": {}}}',
            '{"result": {"text": "\\ud800", "pages": 1, "truncated": false, "metadata": {}}}',
            '{"result": {"text": "", "pages": 1, "truncated": false, "metadata": {"title": "\\u0000"}}}',
        ],
    )
    async def test_lies(self, extract: Extract, scripted: Scripted, output: str) -> None:
        assert await failure(extract(by=scripted(f"print({output!r})"))) == (Permanent, "text-crashed")

    async def test_endless_lines(self, tmp_path: Path, scripted: Scripted) -> None:
        (tmp_path / "document").touch()
        reports: list[float] = []
        chatter = scripted(f"while True: {PROGRESS}").run(source(tmp_path / "document"), TextParams(), reports.append)
        assert await failure(chatter) == (Permanent, "text-crashed")
        assert len(reports) == MAX_LINES

    async def test_gets_the_document_and_nothing_else(
        self, extract: Extract, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JWT_SECRET", "secret")
        tell = scripted(
            "known = {'document': sys.stdin.read(), 'folder': os.getcwd(), 'open': str(os.listdir('/dev/fd')[:3]),\n"
            "         'group': str(os.getpgrp() == os.getpid()), 'secret': os.environ.get('JWT_SECRET', 'unknown')}\n"
            "print(json.dumps({'result': {'text': '', 'pages': 1, 'truncated': False, 'metadata': known}}))"
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
