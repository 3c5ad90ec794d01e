"""Packages that others have written, as they are installed."""

import sys
from importlib import invalidate_caches
from itertools import count
from pathlib import Path

PROCESSOR = """
from pydantic import BaseModel
from app.processors.base import LongList, LongText, Params, Permanent, Transient


class TheParams(Params):
    most: int = 3


class TheResult(BaseModel):
    found: str


class Processor:
    name = "own"
    version = "1"
    description = "For tests."
    at_once = None
    params = TheParams
    result = TheResult

    async def run(self, source, params, report):
        return {"found": source.filename}
"""
_number = count(1)


def package(folder: Path, code: str, *, offers: str = "own", kind: str = "Processor", extra: str = "") -> str:
    """Install a package with one module in a folder; return its name. It `offers` processors, all of one class."""
    name = next(each for number in _number if (each := f"own_{number}") not in sys.modules)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    points = [f"{each} = {name}:{kind} {extra}\n" for each in offers.split()]
    (info / "entry_points.txt").write_text("[document_api.processors]\n" + "".join(points))
    invalidate_caches()
    return name
