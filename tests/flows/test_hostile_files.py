"""Documents that swallow memory, never end, or crash their reader: a typed failure, once, and the server serves on."""

import io
import os
import signal
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import pikepdf
import pytest

from tests.flows.test_shares import UPLOADS, repeated, seconds
from tests.support.factories import docx, docx_with, pdf
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.unit.test_text_processor import endless_pdf, limits_memory, linux_only, pdf_of

MEGABYTE = 1024**2


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("limited") / "var", module="tests.support.small_limits") as server:
        yield server


def memory_bomb() -> bytes:
    """Some kilobytes that inflate to 256 MB, twice the limit."""
    packer = zlib.compressobj(1)
    inner = b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(256)) + packer.flush()
    return pdf_of(zlib.compress(inner), "/FlateDecode /FlateDecode")


def start(user: User, document: bytes) -> str:
    """Upload, and have the text read; returns the job's id."""
    complete = document + b"startxref\n0\n%%EOF\n"
    job_id: str = user.start(user.upload(complete)["id"], processor="text")["id"]
    return job_id


def assert_failed_for_good(user: User, job_id: str, code: str) -> None:
    job = user.finished(job_id)
    assert (job["state"], job["attempt"], job["dead"], job["error"]["code"]) == ("FAILED", 1, False, code)
    result = user.http.get(f"/documents/{job['document_id']}/result")
    assert (result.status_code, result.json()["error"]) == (409, job["error"])


def assert_serving(user: User) -> None:
    harmless = user.finished(start(user, pdf("Hello")))
    assert user.http.get(harmless["result_url"]).json()["data"]["text"] == "Hello 1"
    assert user.http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("document", "code"),
    [
        pytest.param(memory_bomb, "text-out-of-memory", marks=limits_memory),
        pytest.param(endless_pdf, "text-timeout"),
    ],
)
def test_a_document_beyond_a_limit(limited: Server, document, code: str) -> None:
    user = limited.register()
    job_id = start(user, document())
    assert_serving(user)
    assert_failed_for_good(user, job_id, code)
    assert_serving(user)


def readers(server: Server) -> list[int]:
    children = Path(f"/proc/{server.pid}/task").glob("*/children")
    return [int(pid) for each in children for pid in each.read_text().split()]


@linux_only
def test_a_document_that_crashes_its_reader(limited: Server) -> None:
    user = limited.register()
    job_id = start(user, endless_pdf())
    (reader,) = until(lambda: readers(limited))
    os.kill(reader, signal.SIGSEGV)
    assert_failed_for_good(user, job_id, "text-crashed")
    assert_serving(user)


def saved(document: pikepdf.Pdf) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def endless_forms() -> bytes:
    """A page of nine forms, each of which draws the next one ten times: a thousand million squares."""
    document = pikepdf.open(io.BytesIO(pdf()))

    def form(content: bytes, **inner: pikepdf.Object) -> pikepdf.Object:
        drawn = document.make_stream(content)
        drawn.Type, drawn.Subtype, drawn.BBox = pikepdf.Name.XObject, pikepdf.Name.Form, [0, 0, 600, 800]
        drawn.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(**inner))
        return drawn

    last = form(b"0 0 500 500 re f")
    for _ in range(8):
        last = form(b"/F Do " * 10, F=last)
    page = document.pages[0]
    page.Resources.XObject, page.Contents = pikepdf.Dictionary(F=last), document.make_stream(b"/F Do " * 10)
    return saved(document)


def endless_shading() -> bytes:
    """A page that is painted by a function of PostScript, over and over."""
    document = pikepdf.open(io.BytesIO(pdf()))
    function = document.make_stream(b"{ " + b"sin cos " * 200 + b"exch pop dup dup }")
    function.FunctionType, function.Domain, function.Range = 4, [0, 1, 0, 1], [0, 1] * 3
    shading = pikepdf.Dictionary(
        ShadingType=1, ColorSpace=pikepdf.Name.DeviceRGB, Function=function, Matrix=[600, 0, 0, 800, 0, 0]
    )
    page = document.pages[0]
    page.Resources.Shading = pikepdf.Dictionary(S=shading)
    page.Contents = document.make_stream(b"/S sh " * 1000)
    return saved(document)


def large_image() -> bytes:
    """An image of a hundred million pixels in some kilobytes."""
    document = pikepdf.open(io.BytesIO(pdf()))
    image = document.make_stream(zlib.compress(bytes(3 * 10**8), 1))
    image.Type, image.Subtype, image.Filter = pikepdf.Name.XObject, pikepdf.Name.Image, pikepdf.Name.FlateDecode
    image.Width = image.Height = 10_000
    image.ColorSpace, image.BitsPerComponent = pikepdf.Name.DeviceRGB, 8
    page = document.pages[0]
    page.Resources.XObject = pikepdf.Dictionary(I=image)
    page.Contents = document.make_stream(b"600 0 0 800 0 0 cm /I Do")
    return saved(document)


def page(user: User, document_id: str) -> tuple[int, str | None]:
    """The status of a picture of its first page, and why there is none."""
    answer = user.http.get(f"/documents/{document_id}/pages/1.png?width=1600", timeout=30)
    return answer.status_code, None if answer.status_code == 200 else answer.json()["error"]["code"]


def complete(document: bytes) -> bytes:
    return document + b"startxref\n0\n%%EOF\n"


@pytest.mark.parametrize(
    ("document", "codes"),
    [
        pytest.param(lambda: complete(memory_bomb()), {"picture-out-of-memory"}, marks=limits_memory),
        pytest.param(large_image, {None, "picture-out-of-memory"}, marks=limits_memory),
        pytest.param(endless_forms, {"picture-timeout", "picture-out-of-memory"}),
        pytest.param(endless_shading, {"picture-timeout"}),
        pytest.param(lambda: complete(pdf_of(b"", count=10**9)), {None, "malformed-document"}),
    ],
    ids=["memory bomb", "large image", "forms", "shading", "pages that are not there"],
)
def test_a_page_beyond_a_limit(limited: Server, document, codes: set[str | None]) -> None:
    user = limited.register()
    own, harmless = (user.upload(each)["id"] for each in (document(), pdf("Harmless")))
    assert page(user, own)[1] in codes
    assert page(user, harmless) == (200, None)
    assert page(user, own)[1] in codes
    assert readers(limited) == []
    assert_serving(user)


@linux_only
def test_a_page_that_crashes_its_reader(limited: Server) -> None:
    user = limited.register()
    own = user.upload(endless_shading())["id"]
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(page, user, own)
        (reader,) = until(lambda: readers(limited))
        os.kill(reader, signal.SIGSEGV)
        assert answer.result() == (409, "picture-crashed")
    assert_serving(user)


def test_pages_of_one_account_that_take_long_delay_nobody_else(limited: Server) -> None:
    mallory, alice = limited.register(), limited.register()
    heavy, light = mallory.upload(endless_shading())["id"], alice.upload(pdf("Light"))["id"]
    with repeated([partial(page, mallory, heavy)] * 8):
        time.sleep(1)
        assert page(alice, light) == (200, None)
        assert max(seconds(lambda: alice.http.get(f"/documents/{light}")) for _ in range(10)) < 1


@pytest.mark.long
def test_archives_of_one_account_that_take_long_to_inflate_delay_nobody_else(tmp_path: Path) -> None:
    zeros = {f"word/media/{number}.bin": bytes(49 * 10**6) for number in range(3)}
    heavy = docx_with(zeros | {"word/media/noise.bin": os.urandom(4 * 10**6)})
    with Server(tmp_path / "var") as server:
        mallory, alice = server.register(), server.register()
        document = alice.upload()["id"]
        alone = median([seconds(lambda: alice.http.get(f"/documents/{document}/content")) for _ in range(10)])
        with repeated([partial(mallory.at(server).post_file, heavy, "a.docx") for _ in range(UPLOADS // 2)]):
            time.sleep(1)
            meanwhile = [seconds(lambda: alice.http.get(f"/documents/{document}/content")) for _ in range(10)]
            assert median(meanwhile) < alone + 0.05
            assert seconds(lambda: alice.post_file(docx(), "b.docx")) < 1
