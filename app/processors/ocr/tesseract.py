"""Tesseract, the program of this machine that recognises text: https://tesseract-ocr.github.io."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from app.processors.program import ConfinedProgram
from app.processors.text.output import clean

MAX_OUTPUT = 8 * 1024**2  # bytes; a page that is full of small print has some 200 KiB
INSTALL = "on Debian, apt-get install tesseract-ocr tesseract-ocr-eng"
ORIENTATION = "osd"  # the data with which it finds out how a page is turned
_NO_LANGUAGES = {ORIENTATION, "equ"}
UPRIGHT, TURNED = "3", "1"  # its modes of segmentation; the second takes twice as long
UNSURE = 60.0  # confidence below which a page may be turned; upside down, print has some 40
_VERSION = re.compile(r"^tesseract v?([!-~]{1,20})", re.MULTILINE)
_LANGUAGES = re.compile(r'^List of available languages in "(.+)".*\n((?:.*\n?)*)', re.MULTILINE)
# A word of its TSV: level, page, block, paragraph, line, word, left, top, width, height, confidence, text.
_WORD = re.compile(
    r"^5\t\d+\t(\d+\t\d+)\t(\d+)\t\d+(?:\t-?\d+){4}\t(\d+(?:\.\d+)?)\t([^\t\n]*[^\s][^\t\n]*)$", re.MULTILINE
)
_PARAGRAPH, _LINE, _CONFIDENCE, _TEXT = map(itemgetter, range(4))


class TesseractMissing(Exception):
    """There is none, or none that can be used. Says what to install."""


class Recognised(NamedTuple):
    """The text of a page, and the mean confidence of its words, from 0 to 100, or None if there is none."""

    text: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Tesseract:
    """Where it is, its version, and the languages that it knows. `digest` is eight hex digits of all its data.

    `turns`: whether it can find out how a page is turned. For an image, it may use `memory` bytes.
    """

    path: Path
    version: str
    tessdata: Path
    languages: tuple[str, ...]
    digest: str
    turns: bool = False
    memory: int = 512 * 1024**2

    async def recognise(self, image: bytes, languages: Sequence[str], *, name: str) -> Recognised:
        """Return the text of an image, if need be turned. Raises as `read` does."""
        found = await asyncio.to_thread(text_in, await self.read(image, languages, UPRIGHT, name=name))
        if not self.turns or found.confidence is None or found.confidence >= UNSURE:
            return found
        turned = await asyncio.to_thread(text_in, await self.read(image, languages, TURNED, name=name))
        return max(found, turned, key=lambda each: each.confidence or 0)

    async def read(self, image: bytes, languages: Sequence[str], mode: str, *, name: str) -> bytes:
        """Return the words of an image, as TSV. Raises as a ConfinedProgram of this name does."""
        program = ConfinedProgram(
            name=name,
            path=self.path,
            environment={"OMP_THREAD_LIMIT": "1"},
            readable=(self.tessdata,),
            memory=self.memory,
            cpu_seconds=120,
            seconds=240,
        )
        data = ["--tessdata-dir", str(self.tessdata), "-l", "+".join(languages)]
        arguments = ["stdin", "stdout", *data, "--psm", mode, "-c", "tessedit_create_tsv=1"]
        return await program.run(arguments, image, max_output=MAX_OUTPUT)


@cache
def found() -> Tesseract:
    """Return the one that PATH, and TESSDATA_PREFIX for its languages, lead to. Raises TesseractMissing."""
    path = shutil.which("tesseract")
    if path is None:
        raise TesseractMissing(f"it needs tesseract, which is not installed: {INSTALL}")
    told = _told(path)
    version, languages = _VERSION.search(told), _LANGUAGES.search(told)
    if version is None or languages is None:  # version 4 does not say where its languages are
        raise TesseractMissing(f"it needs tesseract 5 or newer, which {path} is not: {INSTALL}")
    tessdata = Path(languages[1])
    names = sorted({name.strip() for name in languages[2].splitlines() if name.strip()})
    known = tuple(name for name in names if name not in _NO_LANGUAGES)
    if not known:
        raise TesseractMissing(f"tesseract has no language in {tessdata}: {INSTALL}")
    digest = _digest(tessdata, names)
    return Tesseract(Path(path).resolve(), version[1], tessdata, known, digest, ORIENTATION in names)


def _told(path: str) -> str:
    environment = {name: os.environ[name] for name in ("TESSDATA_PREFIX",) if name in os.environ}
    try:
        done = subprocess.run(
            [path, "--version", "--list-langs"], env=environment, capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise TesseractMissing(f"{path} does not work: {error}") from error
    return (done.stdout + done.stderr).decode(errors="replace")


def _digest(tessdata: Path, languages: Sequence[str]) -> str:
    digest = sha256()
    for name in languages:
        try:
            with (tessdata / f"{name}.traineddata").open("rb") as file:
                digest.update(name.encode() + b"\0" + file_digest(file, "sha256").digest())
        except OSError as error:
            raise TesseractMissing(f"the language {name} of tesseract cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:8]


def text_in(tsv: bytes) -> Recognised:
    """Return the text of a page in Tesseract's TSV. Blank lines divide its paragraphs.

    What is no row for a word is passed over: an image may have exploited the program.
    """
    words = _WORD.findall(clean(tsv.decode(errors="replace")))
    paragraphs = ["\n".join(_lines(list(each))) for _, each in groupby(words, _PARAGRAPH)]
    confidence = round(fmean(min(100.0, float(_CONFIDENCE(word))) for word in words), 1) if words else None
    return Recognised("\n\n".join(paragraphs), confidence)


def _lines(words: list[tuple[str, ...]]) -> list[str]:
    return [" ".join(map(_TEXT, line)) for _, line in groupby(words, _LINE)]
