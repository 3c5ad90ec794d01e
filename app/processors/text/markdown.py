"""Writes GitHub's Markdown (GFM): text stays text, whatever it looks like."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple
from unicodedata import category
from urllib.parse import quote

LINE_BREAK = "<br>"  # within a cell of a table

_LONGEST_URL = 2000  # characters
_URL = re.compile("(https?|mailto):", re.IGNORECASE)
# Brackets and what else could end a link, a cell or a line is percent-encoded.
_SAFE = "%/:?#@!$&'*+,;=~-._"
# An underscore between letters or digits is never emphasis.
_SPECIAL = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
# What begins or underlines a block where it begins a line: headings, lists, quotes, rules and tables.
_BLOCK = re.compile(r"^(?=#{1,6}(?:\s|$)|[-+](?:\s|$)|>|=+[\t ]*$|[-:][-:\t ]*$)", re.MULTILINE)
_ORDERED = re.compile(r"^([0-9]{1,9})(?=[.)](?:\s|$))", re.MULTILINE)
_AFTER_NOTE = re.compile("^(?=[(:])")  # what a link or a definition would go on with


class Run(NamedTuple):
    """A piece of text in one style, with the URL that it links to, or the number of a note that is referred to."""

    text: str
    bold: bool = False
    italic: bool = False
    link: str = ""
    note: int = 0


def escaped(text: str) -> str:
    """Return text in which nothing is Markdown, but for what begins a line: see `lines`."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def lines(text: str) -> str:
    """Return the content of a paragraph, no line of which begins another block."""
    return _ORDERED.sub(r"\1\\", _BLOCK.sub(r"\\", text))


def paragraph(text: str, indent: str = "") -> str:
    """Return a paragraph, with hard breaks between its lines, which are indented from the second on."""
    return lines(text).replace("\n", f"\\\n{indent}")


def heading(level: int, text: str) -> str:
    """Return a heading, which has one line."""
    text = text.replace("\n", " ")
    if text.endswith("#"):  # or it would end the heading
        kept = text.rstrip("#")
        text = f"{kept}\\{text[len(kept) :]}"
    return f"{'#' * level} {text}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of inline Markdown without newlines, of which the first row is the header. Readers fill up short
    rows."""
    width = max(map(len, rows))
    header, *body = rows
    head = [[*header, *[""] * (width - len(header))], ["---"] * width]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *body])


def note(number: int, blocks: Iterable[str]) -> str:
    """Return the definition of a note."""
    return f"[^{number}]: " + "\n\n".join(blocks).replace("\n", "\n    ").replace("\n    \n", "\n\n")


def linkable(url: str) -> str:
    """Return a URL that a link may have, or ""."""
    url = url.strip()
    return quote(url, _SAFE) if _URL.match(url) and len(url) <= _LONGEST_URL else ""


def inline(runs: Sequence[Run]) -> str:
    """Return the Markdown of a paragraph's runs, in which a newline is a line break. It begins no block: see `lines`.

    Emphasis is left out where its marks would not be read as such: next to a letter on one side and a sign on the
    other (CommonMark 0.31 §6.2).
    """
    merged = list(_merged(runs))
    made: list[str] = []
    before = ""
    for number, run in enumerate(merged):
        after = _first(merged[number + 1]) if number + 1 < len(merged) else ""
        has_link = bool(run.link and run.text.strip())
        if before == "!" and (run.note or has_link):  # or it would be an image
            made[-1] = made[-1][:-1] + r"\!"
        if run.note:
            text = f"[^{run.note}]"
        elif has_link:
            text = _link(run)
        else:
            text = _emphasized(run, before, after)
            if number and merged[number - 1].note:
                text = _AFTER_NOTE.sub(r"\\", text)
        made.append(text)
        before = text[-1:]
    return "\n".join(filter(None, map(str.strip, "".join(made).split("\n"))))


def _merged(runs: Iterable[Run]) -> Iterable[Run]:
    """Yield the runs that have text, neighbours of one style as one. A link has one style."""
    said = (run for run in runs if run.text or run.note)
    for (link, note_, bold, italic), same in groupby(said, lambda run: (run.link, run.note, run.bold, run.italic)):
        yield Run("".join(run.text for run in same), bold, italic, link, note_)


def _first(run: Run) -> str:
    return "[" if run.link or run.note else run.text[:1]


def _link(run: Run) -> str:
    text = run.text.strip()
    before, _, behind = run.text.partition(text)
    return f"{before}[{_emphasized(run._replace(text=text), '[', ']')}]({run.link}){behind}"


def _emphasized(run: Run, before: str, after: str) -> str:
    """Return a run's Markdown between these characters, "" at the ends of a paragraph."""
    core = run.text.strip()
    text = escaped(core)
    if not core or not (run.bold or run.italic):
        return escaped(run.text)
    ahead, _, behind = run.text.partition(core)
    outer = ahead or before
    if outer == "*" or not (_parts(outer, text[0]) and _parts(behind or after, text[-1])):
        return escaped(run.text)
    marks = "*" * (2 * run.bold + run.italic)
    return f"{ahead}{marks}{text}{marks}{behind}"


def _parts(outer: str, inner: str) -> bool:
    """Whether marks of emphasis can stand between two characters, the second of which is inside."""
    return not outer or outer.isspace() or _is_sign(outer[-1]) or not _is_sign(inner)


def _is_sign(character: str) -> bool:
    return category(character)[0] in "PS"
