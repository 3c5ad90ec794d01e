"""A function that is called in a confined child process, as authors of processors do it."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.processors.base import Permanent, ProcessingError, Transient
from app.processors.child import call
from app.testing.checks import children
from tests.support.packages import package
from tests.unit.test_text_processor import limits_memory, linux_only

CODE = """
import os, time
from pathlib import Path

def first(document, most=1):
    print("this is lost")
    return {"first": document.read(most).decode(), "most": most}

def refuse(document):
    from app.processors.base import Permanent
    raise Permanent("no-pages", "The document has no pages.")

def give_up(document):
    from app.processors.base import Transient
    raise Transient("later", "Not now.")

def break_down(document):
    raise ValueError("x" * 10_000)

def return_a_set(document):
    return {1, 2}

def import_what_is_not_there(document):
    import nowhere

def take_memory(document):
    return len(bytearray(10**9))

def take_time(document):
    time.sleep(60)

def compute(document):
    while True:
        pass

def say_much(document):
    return "x" * 20_000_000

def read(document, path):
    return Path(path).read_text()

def environment(document):
    return dict(os.environ)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return package(tmp_path / "packages", CODE, offers="")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document"
    path.write_text("abc")
    return path


async def failure(function: str, document: Path, **options: Any) -> tuple[type[ProcessingError], str]:
    with pytest.raises(ProcessingError) as caught:
        await call(function, document, **options)
    return caught.type, caught.value.code


async def test_it_gets_the_document_and_params_and_returns_json(module: str, document: Path) -> None:
    assert await call(f"{module}:first", document) == {"first": "a", "most": 1}
    assert await call(f"{module}:first", document, {"most": 2}) == {"first": "ab", "most": 2}


@pytest.mark.parametrize(
    ("function", "kind", "code"),
    [
        ("refuse", Permanent, "no-pages"),
        ("give_up", Transient, "later"),
        ("break_down", Permanent, "break-down-crashed"),
        ("return_a_set", Permanent, "return-a-set-crashed"),
        ("import_what_is_not_there", Transient, "import-what-is-not-there-unavailable"),
        ("not_there", Permanent, "not-there-crashed"),
        pytest.param("take_memory", Permanent, "take-memory-out-of-memory", marks=limits_memory),
        ("say_much", Permanent, "say-much-too-large"),
    ],
)
async def test_what_it_raises(
    module: str, document: Path, function: str, kind: type[ProcessingError], code: str
) -> None:
    assert await failure(f"{module}:{function}", document) == (kind, code)


async def test_its_limits(module: str, document: Path) -> None:
    assert await failure(f"{module}:take_time", document, seconds=0.5) == (Permanent, "take-time-timeout")
    assert await failure(f"{module}:compute", document, cpu_seconds=1) == (Permanent, "compute-timeout")
    assert set(await call(f"{module}:environment", document)) <= {"LC_CTYPE"}, "which Python sets"


@linux_only
async def test_it_reads_no_file_but_what_it_is_given(module: str, document: Path, tmp_path: Path) -> None:
    secret = tmp_path / "packages" / "secret"  # beside the code
    secret.write_text("secret")
    asked = {"path": str(secret)}
    assert await failure(f"{module}:read", document, params=asked) == (Permanent, "read-crashed")
    assert await call(f"{module}:read", document, asked, readable=(secret,)) == "secret"


@linux_only
async def test_cancelled_it_ends_at_once(module: str, document: Path) -> None:
    before = children()
    work = asyncio.create_task(call(f"{module}:take_time", document))
    await asyncio.wait([work], timeout=1)
    assert children() - before
    work.cancel()
    began = time.monotonic()
    await asyncio.wait([work])
    assert (work.cancelled(), time.monotonic() - began < 5, children() - before) == (True, True, set())


async def test_a_module_that_is_not_there(document: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        await call("nowhere_at_all:f", document)


async def test_a_module_without_a_function(module: str, document: Path) -> None:
    with pytest.raises(ValueError, match="function"):
        await call(module, document)


async def test_params_that_are_too_long_are_refused(module: str, document: Path) -> None:
    with pytest.raises(ValueError, match="params"):
        await call(f"{module}:first", document, {"most": "x" * 200_000})
    assert module not in sys.modules, "its code is imported in the child only"
