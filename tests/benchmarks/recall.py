"""How much of a text is found: `make recall FILES=folder` compares each PDF with pdftotext, each DOCX with pandoc.

Both must be installed. Recall is the share of their words that the processor `text` has too, each as often as it
occurs; a word that is made up is one that they do not have, not even in pieces that the other joins.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

from app.files.sniffing import DOCX, PDF
from app.processors.base import Permanent
from app.processors.text.processor import TextProcessor
from app.testing import source

_WORD = re.compile(r"\w+")
_TIMEOUT = 120  # seconds for one file


def main(folder: Path) -> None:
    sys.stdout.write("| file | words of the other | recall | made up | seconds |\n|---|--:|--:|--:|--:|\n")
    recalls: dict[str, list[float]] = {PDF: [], DOCX: []}
    for path in sorted(folder.rglob("*")):
        kind = {".pdf": PDF, ".docx": DOCX}.get(path.suffix.lower())
        if kind and (theirs := _theirs(path, kind)):
            _compare(path, kind, theirs, recalls[kind])
    for kind, found in recalls.items():
        if found:
            sys.stdout.write(
                f"\n{kind}: {len(found)} files, mean {sum(found) / len(found):.4f}, median {median(found):.4f}\n"
            )


def _compare(path: Path, kind: str, theirs: str, recalls: list[float]) -> None:
    began = time.perf_counter()
    try:
        ours = _ours(path, kind)
    except Permanent as refusal:
        sys.stdout.write(f"| {path.name} | {len(_WORD.findall(theirs))} | refused: {refusal.code} | | |\n")
        return
    seconds = time.perf_counter() - began
    wanted, found = (Counter(_WORD.findall(text.casefold())) for text in (theirs, ours))
    recall = (wanted & found).total() / wanted.total()
    joined = "".join(_WORD.findall(theirs.casefold()))
    made_up = sum(times for word, times in (found - wanted).items() if word not in joined)
    recalls.append(recall)
    sys.stdout.write(f"| {path.name} | {wanted.total()} | {recall:.4f} | {made_up} | {seconds:.2f} |\n")


def _ours(path: Path, kind: str) -> str:
    processor = TextProcessor(max_characters=10**8)
    given = source(path, content_type=kind)
    result = asyncio.run(processor.run(given, processor.params(), lambda _: None))
    text = result["text"]
    return text if isinstance(text, str) else "".join(text)


def _theirs(path: Path, kind: str) -> str:
    """The text by the other program; empty if it has none."""
    command = (
        ["pdftotext", "-enc", "UTF-8", path, "-"] if kind == PDF else ["pandoc", "-t", "plain", "--wrap=none", path]
    )
    program = shutil.which(str(command[0]))
    if program is None:
        sys.exit(f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], capture_output=True, timeout=_TIMEOUT, check=False)
    text = done.stdout.decode(errors="replace")
    return text if _WORD.search(text) else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
