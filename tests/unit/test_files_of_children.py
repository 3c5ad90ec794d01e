"""Files that a confined child hands to its parent: as they are, or the child is refused."""

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import app
from app.processors.base import Permanent
from app.processors.child import MAX_FILES, MAX_LINES, ConfinedChild
from app.processors.sandbox.output import MAX_LINE, PIECE
from tests.unit.test_text_processor import linux_only

Handed = list[tuple[dict[str, Any], bytes]]
Scripted = Callable[..., Coroutine[Any, Any, Handed]]

# What a script can use: the lines of a file of so many bytes.
BEGIN = """
import base64, json, os
def emit(**line):
    print(json.dumps(line), flush=True)
def data(size):
    emit(data=base64.b64encode(bytes(size)).decode())
"""
END = "emit(result={'outcome': 'good'})"
FILE = "emit(file={'number': 1}); data(40_000); data(5); data(0)"


class Found(BaseModel, extra="forbid", strict=True):
    outcome: str


class Told(BaseModel, extra="forbid", strict=True):
    number: int


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Runs a child that is this program, and returns its files."""
    monkeypatch.syspath_prepend(tmp_path)

    async def run(program: str, *, takes: bool = True, others: tuple[Path, ...] = ()) -> Handed:
        lines = "\n".join(f"    {line}" for line in program.splitlines())
        (tmp_path / "script.py").write_text(f"{BEGIN}\ndef main(task):\n{lines}\n")
        code = (Path(app.__file__).parent,)
        child, handed = ConfinedChild(name="script", module="script", result=Found, readable=code), list[Any]()

        async def on_file(told: dict[str, Any], chunks: AsyncIterator[bytes]) -> None:
            Told.model_validate(told)
            handed.append((told, b"".join([chunk async for chunk in chunks])))

        taken = on_file if takes else None
        task = {"others": [str(path) for path in others]}
        document = tmp_path / "script.py"
        await child.run(document, task, lambda _: None, max_line=MAX_LINE, on_file=taken, others=others[:1])
        return handed

    return run


async def test_files_are_as_they_were_handed_over(scripted: Scripted) -> None:
    program = f"""\
from app.processors.sandbox.output import HandedFile
for number, size in enumerate([0, 1, {PIECE}, {3 * PIECE + 1}]):
    file = HandedFile({{"number": number}})
    for written in (size // 3, size - size // 3):
        file.write(bytes([number]) * written)
    file.end()
    emit(progress=0.5)
{END}"""
    handed = await scripted(program)
    assert handed == [
        ({"number": number}, bytes([number]) * size) for number, size in enumerate([0, 1, PIECE, 3 * PIECE + 1])
    ]


@pytest.mark.parametrize(
    "program",
    [
        "data(5)",
        "emit(file={'number': 1}); data(5); data(5); data(0)",
        "emit(file={'number': 1}); emit(progress=0.5)",
        "emit(file={'number': 1}); emit(data='not Base64')",
        "emit(file={'number': 1}); emit(file={'number': 2})",
        "emit(file={'number': '1'}); data(0)",
        "emit(file=[])",
        f"for _ in range({MAX_FILES + 1}): emit(file={{'number': 1}}); data(0)",
        f"for _ in range({MAX_LINES + MAX_FILES + 1}): emit(progress=0)",
        "emit(file={'number': 1}); os.abort()",
    ],
)
async def test_what_is_no_file_is_refused(scripted: Scripted, program: str) -> None:
    with pytest.raises(Permanent) as caught:
        await scripted(f"{program}\n{END}")
    assert caught.value.code in {"script-crashed", "script-out-of-memory"}


async def test_an_error_after_a_file_has_begun(scripted: Scripted) -> None:
    with pytest.raises(Permanent) as caught:
        await scripted("emit(file={'number': 1}); data(40_000); emit(error='out-of-memory')")
    assert caught.value.code == "script-out-of-memory"


async def test_whoever_takes_no_files_is_given_none(scripted: Scripted) -> None:
    assert await scripted(f"{FILE}\n{END}") == [({"number": 1}, bytes(40_005))]
    with pytest.raises(Permanent) as caught:
        await scripted(f"{FILE}\n{END}", takes=False)
    assert caught.value.code == "script-crashed"


@linux_only
async def test_it_reads_those_files_that_it_is_given(scripted: Scripted, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "files" / "ours", tmp_path / "files" / "theirs"
    ours.parent.mkdir()
    ours.write_bytes(b"ours")
    theirs.write_bytes(b"theirs")
    program = f"""\
mine, other = task["others"]
assert open(mine).read() == "ours"
try:
    open(other)
except PermissionError:
    {FILE}
{END}"""
    assert len(await scripted(program, others=(ours, theirs))) == 1
