"""The table as a picture."""

from pathlib import Path


def draw(lines, file: Path):
    pass
