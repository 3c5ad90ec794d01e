"""The processor `ocr`, and how the program that it needs is found."""

import asyncio
import io
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from pydantic import ValidationError

from app.errors import ConfigurationError
from app.processing.contract import violation
from app.processing.output import long_json
from app.processors.base import LongText, Permanent
from app.processors.ocr import tesseract
from app.processors.ocr.processor import OcrProcessor
from app.processors.ocr.tesseract import Recognised, Tesseract, TesseractMissing, text_in
from app.processors.ocr.written import Written
from app.settings import Settings
from app.testing import check
from app.testing.checks import children
from app.wiring import adapters
from tests.support.factories import encrypted_pdf, pdf
from tests.support.scans import needs_tesseract, scanned
from tests.unit.test_text_processor import SAMPLES, failure, limits_memory, linux_only, source

MiB = 1024**2
HEADER = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"

Read = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Runs the processor, with the params given, on a file of these bytes."""

    async def run(data: bytes, by: OcrProcessor | None = None, report: Any = print, **params: Any) -> dict[str, Any]:
        (tmp_path / "document").write_bytes(data)
        processor = by or OcrProcessor(tesseract.found())
        return await processor.run(source(tmp_path / "document"), processor.params(**params), report)

    return run


def joined(*documents: bytes) -> bytes:
    """One PDF with the pages of all of them."""
    whole = pikepdf.new()
    for document in documents:
        whole.pages.extend(pikepdf.open(io.BytesIO(document)).pages)
    return saved(whole)


def saved(document: pikepdf.Pdf) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def drawn(content: bytes, width: float, height: float) -> bytes:
    """A PDF with one page of this size, in points."""
    document = pikepdf.new()
    page = document.add_blank_page(page_size=(9, 9))
    page.MediaBox = [0, 0, width, height]
    font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
    page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=font))
    page.Contents = document.make_stream(content)
    return saved(document)


@needs_tesseract
class TestReading:
    async def test_a_scan(self, read: Read) -> None:
        progress: list[float] = []
        result = await read(scanned(pdf("Hello", pages=2)), report=progress.append)
        confidences = [page.pop("confidence") for page in result["pages"]]
        assert result == {
            "text": "Hello 1\fHello 2",
            "characters": 15,
            "words": 4,
            "truncated": False,
            "languages": ["eng"],
            "page_count": 2,
            "unreadable_pages": [],
            "pages": [{"number": n, "text": f"Hello {n}", "source": "ocr"} for n in (1, 2)],
        }
        assert next(iter(result)) == "text", "it can be fetched alone"
        assert all(80 < each <= 100 for each in confidences)
        assert progress == [0.5, 1]

    async def test_pages_that_have_text_keep_it(self, read: Read) -> None:
        mixed = joined(pdf("Exact"), scanned(pdf("Scan")), pdf("Exact too"))
        result = await read(mixed)
        assert result["text"] == "Exact 1\fScan 1\fExact too 1"
        assert [page["source"] for page in result["pages"]] == ["text-layer", "ocr", "text-layer"]
        assert result["pages"][0]["confidence"] is None

    @pytest.mark.parametrize("degrees", [90, 180, 270])
    async def test_a_page_that_lies_on_its_side_or_head(self, read: Read, degrees: int) -> None:
        turned = pikepdf.open(io.BytesIO(scanned((SAMPLES / "sample.pdf").read_bytes())))
        turned.pages[0].rotate(degrees, relative=True)
        assert (await read(saved(turned), max_pages=1))["text"].startswith("Document Lifecycle API\n\nHello!")

    async def test_all_pages(self, read: Read) -> None:
        result = await read(pdf("Hello", pages=2), pages="all")
        assert [(page["text"], page["source"]) for page in result["pages"]] == [("Hello 1", "ocr"), ("Hello 2", "ocr")]

    @pytest.mark.parametrize(
        ("params", "text"), [({"max_pages": 1}, "Hello 1"), ({"max_characters": 11}, "Hello 1\fHel")]
    )
    async def test_limits(self, read: Read, params: dict[str, int], text: str) -> None:
        for data, pages in ((scanned(pdf("Hello", pages=3)), "needed"), (pdf("Hello", pages=3), "all")):
            result = await read(data, pages=pages, **params)
            assert (result["text"], result["truncated"], result["page_count"]) == (text, True, 3)

    async def test_a_page_that_nobody_could_print(self, read: Read) -> None:
        """14,400 points are five meters: at full resolution, 1.6 GB."""
        large = drawn(b"BT /F1 900 Tf 900 9000 Td (Hello there) Tj ET", 14_400, 14_400)
        assert (await read(large, pages="all"))["text"] == "Hello there"
        assert (await read(drawn(b"", 14_400, 1), pages="all"))["text"] == ""

    async def test_a_page_that_cannot_be_read_costs_only_itself(self, read: Read) -> None:
        broken = pdf("Hello", pages=3).replace(b"/Kids [4 0 R 6 0 R", b"/Kids [4 0 R 0 0 R")
        for pages in ("needed", "all"):
            result = await read(broken, pages=pages)
            assert (result["text"], result["unreadable_pages"]) == ("Hello 1\f\fHello 3", [2])
            assert result["pages"][1]["source"] is None

    @pytest.mark.long
    async def test_many_pages(self, read: Read) -> None:
        scan = scanned(pdf("Hello"))
        result = await read(joined(*[scan] * 50))
        assert result["text"] == "\f".join(["Hello 1"] * 50)


@needs_tesseract
class TestFailing:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(encrypted_pdf("secret"), "password-protected", id="password"),
            pytest.param(b"%PDF-1.7\n%%EOF", "malformed-document", id="damaged"),
        ],
    )
    async def test_bad_documents(self, read: Read, data: bytes, code: str) -> None:
        assert await failure(read(data)) == (Permanent, code)

    @limits_memory
    async def test_memory(self, read: Read) -> None:
        little = replace(tesseract.found(), memory=80 * MiB)
        scan = scanned(pdf("Hello"))
        assert await failure(read(scan, OcrProcessor(little))) == (Permanent, "ocr-out-of-memory")
        result = await read(joined(scan, pdf("Exact")), OcrProcessor(little))
        assert (result["text"], result["unreadable_pages"]) == ("\fExact 1", [1])

    async def test_time(self, read: Read) -> None:
        slow = OcrProcessor(tesseract.found(), seconds=0.5)
        assert await failure(read(pdf("Hello", pages=20), slow, pages="all")) == (Permanent, "ocr-timeout")

    @linux_only
    async def test_nothing_is_left_when_it_is_cancelled(self, read: Read) -> None:
        before = children()
        for seconds in (0, 0.2, 0.4, 0.6, 0.8):
            task = asyncio.create_task(read(pdf("Hello", pages=9), pages="all"))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert children() == before


@needs_tesseract
def test_it_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(scanned(pdf("Hello")))
    findings = check(OcrProcessor(tesseract.found()), tmp_path / "scan.pdf")
    assert not [each for each in findings if each.fault]


class TestParams:
    @pytest.fixture
    def processor(self) -> OcrProcessor:
        return OcrProcessor(Tesseract(Path("/tesseract"), "5.3.0", Path("/data"), ("deu", "eng", "fra"), "0123abcd"))

    def test_languages(self, processor: OcrProcessor) -> None:
        assert processor.params().languages == ["eng"]
        assert processor.params(languages=["fra", "deu"]).languages == ["fra", "deu"]
        with pytest.raises(ValidationError, match="Input should be 'deu', 'eng' or 'fra'"):
            processor.params(languages=["eng", "ita"])
        with pytest.raises(ValidationError):
            processor.params(languages=[])

    def test_without_english_the_first_is_the_default(self) -> None:
        some = Tesseract(Path("/tesseract"), "5.3.0", Path("/data"), ("deu", "fra"), "0123abcd")
        assert OcrProcessor(some).params().languages == ["deu"]

    def test_an_operator_limits_characters(self, processor: OcrProcessor) -> None:
        with pytest.raises(ValidationError):
            processor.params(max_characters=1_000_001)
        lavish = OcrProcessor(Tesseract(Path("/t"), "5.3.0", Path("/data"), ("eng",), "0123abcd"), max_characters=10**7)
        assert lavish.params(max_characters=10**7)

    def test_the_version_says_what_recognises(self, processor: OcrProcessor) -> None:
        assert processor.version == "1+tesseract-5.3.0+0123abcd"
        assert violation(processor) is None


def test_a_long_text_is_never_whole_in_memory() -> None:
    written = Written(10**6)
    for number in range(1000):
        written.add(f"{number} " * 20, "ocr", 90.0)
    data = written.result(languages=["eng"], page_count=1000, truncated=False)
    assert isinstance(data["text"], LongText)
    whole = json.loads(b"".join(long_json(data, OcrProcessor.result, 10**8)))
    assert whole["text"].split("\f") == [page["text"] for page in whole["pages"]] == [f"{n} " * 20 for n in range(1000)]
    assert whole["characters"] == len(whole["text"])


class TestTsv:
    def test_words_make_lines_and_paragraphs(self) -> None:
        words = [
            (1, 1, 1, "The"),
            (1, 1, 1, "end"),
            (1, 1, 2, "of"),
            (1, 2, 1, "it."),
            (2, 1, 1, "Done"),
            (2, 1, 2, " "),
        ]
        rows = [f"5\t1\t{b}\t{p}\t{n}\t1\t0\t0\t9\t9\t{90 + b}.5\t{word}" for b, p, n, word in words]
        tsv = HEADER + "1\t1\t0\t0\t0\t0\t0\t0\t9\t9\t-1\t\n" + "\n".join(rows) + "\n"
        assert text_in(tsv.encode()) == Recognised("The end\nof\n\nit.\n\nDone", 91.7)

    @pytest.mark.parametrize(
        "tsv",
        [b"", b"\xff\x00", b"5\t1\t1\n", HEADER.encode(), b"5\t1\t1\t1\t1\t1\t0\t0\t9\t9\tnan\tword\n", b"5\t" * 1000],
    )
    def test_what_is_none_has_no_words(self, tsv: bytes) -> None:
        assert text_in(tsv) == Recognised("", None)


class TestFinding:
    """Which program there is, by what it says of itself."""

    @pytest.fixture(autouse=True)
    def _anew(self) -> Iterator[None]:
        tesseract.found.cache_clear()
        yield
        tesseract.found.cache_clear()

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Puts a program where it is looked for, that says this."""
        monkeypatch.setenv("PATH", str(tmp_path))

        def make(says: str) -> None:
            (tmp_path / "said").write_text(f"{says}\n")
            (tmp_path / "tesseract").write_text(
                f'#!/bin/sh\nwhile read -r each; do echo "$each"; done < {tmp_path}/said\n'
            )
            (tmp_path / "tesseract").chmod(0o755)

        return make

    def languages(self, folder: Path, **data: str) -> str:
        for name, content in data.items():
            (folder / f"{name}.traineddata").write_text(content)
        return f'List of available languages in "{folder}/" ({len(data)}):\n' + "".join(f"{name}\n" for name in data)

    def test_what_it_says(self, tmp_path: Path, install: Callable[[str], None]) -> None:
        install(f"tesseract 5.3.0\n leptonica-1.82.0\n{self.languages(tmp_path, osd='', eng='1', deu='2')}")
        found = tesseract.found()
        assert (found.version, found.tessdata, found.languages) == ("5.3.0", tmp_path, ("deu", "eng"))

    def test_other_data_is_another_version(self, tmp_path: Path, install: Callable[[str], None]) -> None:
        install(f"tesseract 5.3.0\n{self.languages(tmp_path, eng='1')}")
        first = OcrProcessor(tesseract.found()).version
        (tmp_path / "eng.traineddata").write_text("2")
        tesseract.found.cache_clear()
        assert OcrProcessor(tesseract.found()).version != first

    @pytest.mark.parametrize(
        ("says", "reason"),
        [
            (None, "it needs tesseract, which is not installed: on Debian, apt-get install tesseract-ocr"),
            ("tesseract 4.1.1\nList of available languages (1):\neng", "it needs tesseract 5 or newer"),
            (
                'tesseract 5.3.0\nList of available languages in "/data/" (1):\nosd',
                "tesseract has no language in /data",
            ),
            (
                'tesseract 5.3.0\nList of available languages in "/data/" (1):\neng',
                "the language eng of tesseract canno",
            ),
        ],
    )
    def test_none_that_can_be_used(self, install: Callable[[str], None], says: str | None, reason: str) -> None:
        if says:
            install(says)
        with pytest.raises(TesseractMissing, match=reason):
            tesseract.found()
        assert "ocr" not in adapters.offered(Settings(_env_file=None))
        with pytest.raises(ConfigurationError, match=f"^PROCESSORS: ocr: {reason}"):
            adapters.offered(Settings(_env_file=None, processors="text,ocr"))
