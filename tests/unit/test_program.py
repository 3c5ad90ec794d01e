"""Programs that run confined: those of every Unix stand for ones that an image has taken over."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.processors import sandbox
from app.processors.base import Permanent, ProcessingError, Transient
from app.processors.program import ConfinedProgram
from app.testing.checks import children
from tests.unit.test_text_processor import linux_only

MiB = 1024**2
confined_only = pytest.mark.skipif(sandbox.missing() is not None, reason=f"this kernel lacks it: {sandbox.missing()}")


def program(name: str, **more: Any) -> ConfinedProgram:
    return ConfinedProgram(name="other", path=Path(shutil.which(name) or f"/nowhere/{name}").resolve(), **more)


async def outcome(program: ConfinedProgram, *arguments: str, given: bytes = b"", most: int = 1000) -> bytes | str:
    """What it writes, or the code of what it fails with."""
    try:
        return await program.run(arguments, given, max_output=most)
    except ProcessingError as error:
        return error.code


async def test_it_reads_and_writes() -> None:
    assert await outcome(program("cat"), given=b"bytes") == b"bytes"
    assert await outcome(program("head"), "-n", "1", given=b"first\nsecond") == b"first\n"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_more_than_a_pipe_holds(run: Any) -> None:
    given = bytes(range(256)) * 20_000
    assert run(outcome(program("cat"), given=given, most=len(given))) == given
    assert run(outcome(program("head"), "-c", "3", given=given)) == given[:3], "it does not read all"


async def test_it_has_no_environment_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "secret")
    assert await outcome(program("env", environment={"NAME": "value"})) == b"NAME=value\n"


async def test_what_it_fails_with() -> None:
    assert await outcome(program("cat"), given=b"bytes", most=4) == "other-too-large"
    assert await outcome(program("cat"), given=b"bytes", most=5) == b"bytes"
    assert await outcome(program("false")) == "other-crashed"
    assert await outcome(program("sleep", seconds=0.5), "60") == "other-timeout"
    with pytest.raises(Transient, match="ended"):
        await program("there-is-no-such-program").run([], b"", max_output=1)


@linux_only
async def test_memory_and_time_are_limited() -> None:
    assert await outcome(program("sort", memory=32 * MiB), given=b"x" * 48 * MiB) == "other-crashed"
    assert await outcome(program("sh", cpu_seconds=1), "-c", "while :; do :; done") == "other-timeout"


@confined_only
async def test_it_reads_what_it_may_and_executes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    path = str(tmp_path / "file")
    assert await outcome(program("cat"), path) == "other-crashed"
    assert await outcome(program("cat", readable=(tmp_path,)), path) == b"content"
    assert await outcome(program("env"), shutil.which("env") or "", "env") == b"", "itself"
    assert await outcome(program("env"), shutil.which("cat") or "", given=b"x") == "other-crashed"
    assert await outcome(program("sh", readable=(tmp_path,)), "-c", f"echo x > {path}") == "other-crashed"
    assert await outcome(program("sh"), "-c", "cat & wait", given=b"x") == "other-crashed", "it starts no process"
    assert (tmp_path / "file").read_text() == "content"


@linux_only
async def test_nothing_is_left_of_it() -> None:
    before = children()
    for turns in (0, 1, 5, 50):
        task = asyncio.create_task(program("sleep").run(["60"], b"x" * MiB, max_output=1))
        await asyncio.sleep(turns / 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(Permanent):
        await program("sleep", seconds=0.2).run(["60"], b"x" * MiB, max_output=1)
    assert children() == before
