"""Pictures of pages: what is sent, to whom, and of which files there are none."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx2
import pytest
from PIL import Image

from app.documents import pictures
from app.limiter import Limiter
from app.processors.base import Transient
from app.processors.child import ConfinedChild
from app.processors.pdf.picture import MAX_PIXELS, TALLEST
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, encrypted_pdf, pdf
from tests.support.inprocess import Process
from tests.unit.test_text_processor import filled_form, pdf_of

TWO = pdf("Hello", pages=2)


class Reader:
    """Somebody who uploads documents and looks at their pages."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.id, self.token = process.enter(f"{uuid4().hex}@example.com")

    def upload(self, content: bytes, name: str = "a.pdf", kind: str = PDF_TYPE) -> str:
        sent = {"file": (name, content, kind)}
        answer = self.process.http("POST", "/documents", token=self.token, files=sent)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def page(self, document_id: str, number: object = 1, query: str = "", method: str = "GET") -> httpx2.Response:
        return self.process.http(method, f"/documents/{document_id}/pages/{number}.png{query}", token=self.token)

    def unless(self, document_id: str, etag: str) -> httpx2.Response:
        path = f"/documents/{document_id}/pages/1.png"
        return self.process.http("GET", path, token=self.token, headers=[("If-None-Match", etag)])


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("pictures") / "var")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def ada(process: Process) -> Reader:
    return Reader(process)


@pytest.fixture(scope="module")
def two(ada: Reader) -> str:
    return ada.upload(TWO)


def picture(answer: httpx2.Response) -> Image.Image:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    found = Image.open(io.BytesIO(answer.content))
    found.load()
    assert (found.format, found.mode) == ("PNG", "RGB")
    return found


def sized(width: float, height: float) -> bytes:
    return pdf().replace(b"[0 0 595 842]", f"[0 0 {width} {height}]".encode())


def drawn(of: Image.Image) -> int:
    """How many pixels are not white."""
    return sum(of.convert("L").histogram()[:255])


def assert_problem(answer: httpx2.Response, status: int, code: str, reason: str | None = None) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem.get("error", {}).get("code") == reason, problem


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("a page was drawn")


def test_a_page_is_drawn(ada: Reader, two: str) -> None:
    first, second = (picture(ada.page(two, number)) for number in (1, 2))
    assert first.size == (800, 1132)
    assert drawn(first) > 500
    assert first.tobytes() != second.tobytes()
    assert first.getpixel((799, 1131)) == (255, 255, 255)


@pytest.mark.parametrize("width", [64, 333, 1600])
def test_it_is_as_wide_as_was_asked_for(ada: Reader, two: str, width: int) -> None:
    assert picture(ada.page(two, 1, f"?width={width}")).width == width


@pytest.mark.parametrize(
    ("page", "width", "size"),
    [
        ((14_400, 14_400), 1600, (1600, 1600)),
        ((14_400, 72), 64, (64, 1)),
        ((72, 14_400), 64, (2, 256)),
        ((72, 144), 1600, (1415, 2829)),
        ((200, 1_000_000), 1600, (2, 6400)),
    ],
    ids=["200 inches", "a line", "a column", "many pixels", "no page is so tall"],
)
def test_no_page_makes_a_picture_of_more_pixels_than_there_may_be(
    ada: Reader, page: tuple[int, int], width: int, size: tuple[int, int]
) -> None:
    found = picture(ada.page(ada.upload(sized(*page)), 1, f"?width={width}"))
    assert found.size == size
    assert found.height <= TALLEST * width
    assert found.width * found.height <= MAX_PIXELS * 1.01


def test_noise_is_sent_whole(ada: Reader) -> None:
    channels = [Image.effect_noise((1600, 2260), 100) for _ in range(3)]
    file = io.BytesIO()
    Image.merge("RGB", channels).save(file, "PDF", quality=100, resolution=72)
    answer = ada.page(ada.upload(file.getvalue()), 1, "?width=1600")
    assert picture(answer).size == (1600, 2260)
    assert len(answer.content) > 8 * 1024**2


def test_what_is_filled_in_is_drawn(ada: Reader) -> None:
    field = (97, 460, 231, 487)  # where the form has "Ada", in pixels
    empty, filled = (picture(ada.page(ada.upload(each))).crop(field) for each in (pdf(), filled_form()))
    assert drawn(empty) == 0
    assert drawn(filled) > 50


def test_colours_are_those_of_the_page(ada: Reader) -> None:
    red = pdf_of(zlib.compress(b"1 0 0 rg 0 0 99 99 re f")) + b"startxref\n0\n%%EOF\n"
    assert picture(ada.page(ada.upload(red))).getpixel((400, 400)) == (255, 0, 0)


def test_it_is_drawn_once(ada: Reader) -> None:
    document = ada.upload(pdf("Once"))
    first = ada.page(document)
    with patch.object(ConfinedChild, "run", never):
        assert ada.page(document).content == first.content
        unchanged = ada.unless(document, first.headers["etag"])
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for answer in (first, unchanged):
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["etag"] == first.headers["etag"]
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_a_browser_need_not_have_it_drawn_to_know_that_it_has_it(ada: Reader) -> None:
    """As after a restart of the service."""
    etag = ada.page(ada.upload(pdf("The same"))).headers["etag"]
    other = Reader(ada.process)
    document = other.upload(pdf("The same"))
    with patch.object(ConfinedChild, "run", never):
        assert other.unless(document, etag).status_code == 304
    assert other.page(document, 1, "?width=801").headers["etag"] != etag
    changed = other.upload(pdf("Another"))
    assert other.unless(changed, etag).status_code == 200


def test_head(ada: Reader, two: str) -> None:
    whole, head = ada.page(two), ada.page(two, method="HEAD")
    told = ("etag", "content-type", "content-length", "cache-control")
    assert [head.headers[name] for name in told] == [whole.headers[name] for name in told]
    assert ada.page(two, 3, method="HEAD").status_code == 404


def test_a_page_that_is_not_there(ada: Reader, two: str) -> None:
    answer = ada.page(two, 3)
    assert_problem(answer, 404, "page-not-found")
    assert answer.json()["detail"] == "The document has 2 pages."
    with patch.object(ConfinedChild, "run", never):
        assert_problem(ada.page(two, 3), 404, "page-not-found")


@pytest.mark.parametrize("query", ["?width=63", "?width=1601", "?width=x", "?width=", "?height=100"])
def test_widths_that_are_none(ada: Reader, two: str, query: str) -> None:
    assert_problem(ada.page(two, 1, query), 422, "validation-failed")


@pytest.mark.parametrize("number", [0, -1, "x", 2**31, "1.5"])
def test_numbers_that_are_none(ada: Reader, two: str, number: object) -> None:
    assert_problem(ada.page(two, number), 422, "validation-failed")


def test_a_docx_has_none(ada: Reader) -> None:
    assert_problem(ada.page(ada.upload(docx(), "a.docx", DOCX_TYPE)), 409, "no-pictures")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: encrypted_pdf("secret"), "password-protected"),
        (lambda: b"%PDF-1.7\nnothing\nstartxref\n0\n%%EOF\n", "malformed-document"),
        (lambda: sized(0, 0).replace(b"/Count 1", b"/Count 0").replace(b"[4 0 R]", b"[]     "), None),
    ],
    ids=["encrypted", "damaged", "no pages"],
)
def test_a_document_that_cannot_be_read(ada: Reader, content: Any, reason: str | None) -> None:
    answer = ada.page(ada.upload(content()))
    if reason:
        assert_problem(answer, 409, "picture-failed", reason)
    else:
        assert answer.status_code in (404, 409)


def test_an_upload_that_is_not_complete(ada: Reader) -> None:
    size = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(TWO)}
    announced = ada.process.http("POST", "/documents/initiate-upload", token=ada.token, json=size)
    assert_problem(ada.page(announced.json()["document_id"]), 409, "upload-incomplete")


def test_what_belongs_to_others_or_was_deleted_is_not_found_though_it_is_kept(ada: Reader) -> None:
    document, mallory = ada.upload(pdf("Mine")), Reader(ada.process)
    etag = ada.page(document).headers["etag"]
    assert_problem(mallory.page(document), 404, "not-found")
    assert_problem(mallory.unless(document, etag), 404, "not-found")
    for query in ("", "?permanent=true"):
        ada.process.http("DELETE", f"/documents/{document}{query}", token=ada.token)
        assert_problem(ada.page(document), 404, "not-found")
        assert_problem(ada.unless(document, etag), 404, "not-found")


def test_nothing_is_written(ada: Reader, two: str) -> None:
    def there() -> set[Path]:
        return {path for path in Path(ada.process.services.settings.data_dir).rglob("*") if path.is_file()}

    before = there()
    ada.page(two, 1, "?width=123")
    assert there() == before


def test_a_file_that_is_missing(ada: Reader) -> None:
    document = ada.upload(pdf("Lost"))
    files = Path(ada.process.services.settings.data_dir) / "files"
    newest = max((path for path in files.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    assert_problem(ada.page(document), 500, "file-missing")


def test_another_file_has_other_pictures(ada: Reader) -> None:
    document = ada.upload(pdf("Old"))
    old = ada.page(document)
    sent = {"files": {"file": ("b.pdf", pdf("New"), PDF_TYPE)}, "headers": [("If-Match", "*")]}
    assert ada.process.http("PUT", f"/documents/{document}/content", token=ada.token, **sent).status_code == 200
    new = ada.page(document)
    assert (new.content != old.content, new.headers["etag"] != old.headers["etag"]) == (True, True)


def test_a_child_that_cannot_be_started_is_no_fault_of_the_document(ada: Reader, two: str) -> None:
    with patch.object(ConfinedChild, "run", side_effect=Transient("picture-unavailable", "none")):
        answer = ada.page(two, 1, "?width=77")
    assert_problem(answer, 503, "too-busy")
    assert answer.headers["retry-after"]


def test_one_who_waits_too_long_is_told(ada: Reader, two: str) -> None:
    with patch.object(ada.process.services.pictures, "_limiter", Limiter(0, 0.01)):
        assert_problem(ada.page(two, 1, "?width=78"), 503, "too-busy")
        assert ada.process.services.usages["pictures"]() == (0, 0)


def test_reading_is_an_event_if_it_shall_be(tmp_path: Path) -> None:
    process = Process(tmp_path / "var", audit_reads="all")
    reader = Reader(process)
    document = reader.upload(TWO)
    etag = reader.page(document, 2).headers["etag"]
    reader.page(document, 2, method="HEAD")
    reader.process.http(
        "GET", f"/documents/{document}/pages/2.png", token=reader.token, headers=[("If-None-Match", etag)]
    )
    timeline = process.http("GET", f"/documents/{document}/timeline", token=reader.token).json()["items"]
    [read] = [each["data"] for each in timeline if each["event"] == "document.content_read"]
    assert (read["start"], read["page"]) == (0, 2)
    assert read["length"] > 1000
    process.kill()


def test_that_a_page_cannot_be_drawn_is_kept_for_a_while(ada: Reader) -> None:
    """Or whoever asks again and again would keep others waiting."""
    document = ada.upload(encrypted_pdf("secret"))
    first = ada.page(document)
    with patch.object(ConfinedChild, "run", side_effect=AssertionError("it is known")):
        again = ada.page(document)
    for answer in (first, again):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, first.json()["error"]["code"])
    with patch.object(pictures, "FAILED_FOR", 0.0):
        other = ada.upload(encrypted_pdf("secret"))
        ada.page(other)
    with patch.object(ConfinedChild, "run", side_effect=Transient("busy", "Asked again.")) as run:
        assert ada.page(other).status_code == 503
        assert run.call_count == 1


def test_how_many_are_drawn_at_once_is_known(process: Process) -> None:
    assert process.services.usages["pictures"]().of == pictures.AT_ONCE
