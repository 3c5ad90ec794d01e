"""Markdown as the console reads it: in time in proportion to the text, and nothing of it lost."""

import time

import pytest

from app.console.documents import markdown
from app.console.documents.markdown import Block

SIZE = 64_000


def rows(block: Block) -> list[list[str]]:
    return [["".join(span.text for span in cell) for cell in row] for row in block.rows]


def test_cells() -> None:
    [table] = markdown.blocks("| a | b |\n|---|---|\n| x \\| y | 2 |\n|  |  |\n| cut | off")
    assert rows(table) == [["a", "b"], ["x | y", "2"], ["", ""], ["cut", "off"]]


@pytest.mark.parametrize(
    ("text", "shown"), [("a \n  b", "a b"), ("a\n \n\tb\nc", "a b c"), (" a", " a"), ("a  b", "a  b")]
)
def test_ends_of_lines_are_blanks(text: str, shown: str) -> None:
    assert "".join(span.text for span in markdown.spans(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| " + "b" * SIZE,
        "a" + " " * SIZE + "b",
        "| a |\n|---|\n" + "|" * SIZE,
        "\\" * SIZE,
        "[" * SIZE,
        "[a](http:" * (SIZE // 9),
        "`a" * (SIZE // 2),
        "**a " * (SIZE // 4),
        "-" + " " * SIZE + "x",
        "|" + " -" * (SIZE // 2),
        "| a |\n|" + "-" * SIZE,
        " \n" * (SIZE // 2),
        "- a\n" * (SIZE // 4),
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.monotonic()
    markdown.blocks(text)
    assert time.monotonic() - began < 5, "what is quadratic takes minutes"
