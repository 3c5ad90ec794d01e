"""Documents that swallow memory, never end, or crash their reader: a typed failure, once, and the server serves on."""

import os
import signal
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

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
