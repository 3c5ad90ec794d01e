"""Packages that others have written, as they are installed."""

import base64
import hashlib
import subprocess
import sys
import tomllib
from importlib import invalidate_caches
from itertools import count
from pathlib import Path
from zipfile import ZipFile

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


def install(project: Path, folder: Path) -> Path:
    """Build a wheel of a project as setuptools would, which not every Python has, and have pip install it in a folder.

    The project has modules and entry points only. Returns the folder that pip has made.
    """
    about = tomllib.loads((project / "pyproject.toml").read_text())
    name, version = about["project"]["name"].replace("-", "_"), about["project"]["version"]
    info = f"{name}-{version}.dist-info"
    groups = about["project"]["entry-points"]
    points = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in groups[group].items()) for group in groups
    ]
    files = {
        f"{module}.py": (project / f"{module}.py").read_bytes() for module in about["tool"]["setuptools"]["py-modules"]
    }
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {about['project']['name']}\nVersion: {version}\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "".join(points).encode()
    files[f"{info}/RECORD"] = "".join(map(_recorded, files, files.values())).encode() + f"{info}/RECORD,,\n".encode()
    wheel, target = folder / f"{name}-{version}-py3-none-any.whl", folder / "packages"
    with ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    offline = ["--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", target, wheel], check=True, timeout=120
    )
    return target


def _recorded(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"
