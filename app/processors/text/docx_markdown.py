"""The Markdown of a DOCX: headings, lists, tables, emphasis, links and notes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from app.processors.text import markdown
from app.processors.text.docx import APART, SKIPPED, Walk, is_hidden, read_by
from app.processors.text.labels import NO_LABEL, Label, value
from app.processors.text.markdown import LINE_BREAK, Run
from app.processors.text.output import Form
from app.processors.text.package import EXTERNAL, Package, etree, local_name
from app.processors.text.styles import Styles

_WIDEST = 63  # columns that Word has: a merged cell has no more
_DEEPEST = 8  # level of a list within others that Word has
_ORDERED = re.compile(r"[0-9]{1,9}[.)]")  # labels that are Markdown themselves
_REFERENCES = {"footnoteReference": "footnote", "endnoteReference": "endnote"}


def read(file: BinaryIO, characters: int) -> dict[str, Any]:
    """Return the result for a DOCX, of which at most `characters` of Markdown are made."""
    return read_by(MarkdownWalk, file, characters)


_Numbers = dict[tuple[Walk, str, str], int]  # of notes: they are counted through all included documents


@dataclass(slots=True)
class _Paragraph:
    """The runs of a paragraph that were not written yet. Its label and level are gone once some were."""

    label: Label = NO_LABEL
    heading: int = 0
    runs: list[Run] = field(default_factory=list)


class MarkdownWalk(Walk):
    """Yields the same text as a Walk, block by block, with blank lines between those that are no items of one list."""

    def __init__(self, package: Package, form: Form, depth: int = 0, numbers: _Numbers | None = None) -> None:
        super().__init__(package, form, depth)
        self._styles = Styles(None)
        self._paragraphs = [_Paragraph()]  # within each other, as in text boxes; the first has what is in none
        self._tables: list[list[list[str]]] = []  # within each other: rows of cells
        self._ready: list[str] = []  # to be yielded
        self._outer: list[list[str]] = []  # in the place of which `_blocks` are those of a cell or note
        self._blocks = self._ready
        self._indents: list[tuple[int, int]] = []  # of the lists that are open: level, and width of the marker
        self._links: list[str] = []
        self._emphasis = (False, False)
        self._numbers: _Numbers = {} if numbers is None else numbers

    def take(self, numbering: Any, styles: Any) -> None:
        self._styles = Styles(styles)
        super().take(numbering, styles)

    def _within(self, package: Package) -> Walk:
        return MarkdownWalk(package, self._form, self._depth + 1, self._numbers)

    def _text(self, root: Any, related: Mapping[str, tuple[str, str]]) -> Iterator[str]:
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            name = local_name(element)
            if event == "end":
                self._leave(name, element)
            elif name in SKIPPED or (name == "r" and is_hidden(element)):
                if name == "sdtPr":
                    self._read_control(element)
                walk.skip_subtree()
            elif name == "altChunk":
                yield from self._included(related.get(value(element, "id")))
                self._indents.clear()
            else:
                self._enter(name, element, related)
            if self._ready:
                yield from self._ready
                self._ready.clear()
        self._write()
        yield from self._ready
        self._ready.clear()

    def _enter(self, name: str, element: Any, related: Mapping[str, tuple[str, str]]) -> None:
        match name:
            case "p":
                self._write()
                self._paragraphs.append(_Paragraph(self._labels.of(element), self._styles.heading(element)))
            case "r":
                self._emphasis = self._styles.emphasis(element)
            case "hyperlink":
                kind, target = related.get(value(element, "id"), ("", ""))
                self._links.append(markdown.linkable(target) if kind == EXTERNAL else "")
            case "tbl":
                self._write()
                self._tables.append([])
            case "tr" if self._tables:
                self._tables[-1].append([""] * _span(element, "trPr", "gridBefore"))
            case "tc" if self._tables:
                self._gather()
            case "footnote" | "endnote":
                self._gather()
            case "footnoteReference" | "endnoteReference":
                self._add(Run("", note=self._number(_REFERENCES[name], value(element, "id"))))
            case _:
                if text := self._of(name, element, related):
                    self._add(Run(f"\n{text}" if name in APART else text, *self._emphasis, "".join(self._links[-1:])))

    def _leave(self, name: str, element: Any) -> None:
        match name:
            case "p":
                self._write()
                self._paragraphs.pop()
            case "r":
                self._emphasis = (False, False)
            case "hyperlink":
                self._links.pop()
            case "tbl":
                self._write_table(self._tables.pop())
            case "tc" if self._tables:
                row = self._tables[-1][-1] if self._tables[-1] else []
                row.append(LINE_BREAK.join(self._gathered()))
                row.extend([""] * (_span(element, "tcPr", "gridSpan") - 1))
                self._tables[-1][-1:] = [row]
            case "footnote" | "endnote":
                number = self._numbers.get((self, name, value(element, "id")))
                blocks = [block.strip("\n") for block in self._gathered()]
                if blocks:
                    self._put(*([markdown.note(number, blocks)] if number else blocks))

    def _gather(self) -> None:
        """Begin to collect the blocks of a cell or of a note."""
        self._write()
        self._outer.append(self._blocks)
        self._blocks = []

    def _gathered(self) -> list[str]:
        self._write()
        gathered, self._blocks = self._blocks, self._outer.pop()
        return gathered

    def _number(self, kind: str, name: str) -> int:
        """The number of a note: they are counted as they are referred to."""
        return self._numbers.setdefault((self, kind, name), len(self._numbers) + 1)

    def _add(self, run: Run) -> None:
        self._paragraphs[-1].runs.append(run)

    def _put(self, *blocks: str) -> None:
        self._indents.clear()
        self._blocks += [f"\n\n{block}" for block in blocks]

    def _write(self) -> None:
        """Write what there is of the paragraph that the walk is in."""
        paragraph = self._paragraphs[-1]
        runs, paragraph.runs = paragraph.runs, []
        if not runs:
            return
        if paragraph.heading:
            runs = [run._replace(bold=False, italic=False) for run in runs]
        if not (text := markdown.inline(runs)):
            return
        label, paragraph.label = paragraph.label, NO_LABEL
        level, paragraph.heading = paragraph.heading, 0
        said = f"{markdown.escaped(label.text)} {text}" if label.text else text
        if self._tables and self._outer:  # in a cell
            self._blocks.append(said.replace("\n", LINE_BREAK))
        elif level:
            self._put(markdown.heading(level, said))
        elif label.text:
            self._write_item(label, text)
        else:
            self._put(markdown.paragraph(said))

    def _write_item(self, label: Label, text: str) -> None:
        """Write an item of a list, below those that it is within."""
        level = min(label.level, _DEEPEST)
        apart = "" if self._indents else "\n"
        while self._indents and self._indents[-1][0] >= level:
            self._indents.pop()
        marker = label.text if _ORDERED.fullmatch(label.text) else "-"
        if marker == "-" and any(map(str.isalnum, label.text)):
            text = f"{markdown.escaped(label.text)} {text}"
        before = " " * sum(width for _, width in self._indents)
        self._indents.append((level, len(marker) + 1))
        text = markdown.paragraph(text, before + " " * (len(marker) + 1))
        self._blocks.append(f"{apart}\n{before}{marker} {text}")

    def _write_table(self, rows: list[list[str]]) -> None:
        if not any(map(any, rows)):
            return
        if self._tables:  # Markdown has no tables within tables
            self._blocks += [" ".join(filter(None, row)) for row in rows if any(row)]
        else:
            self._put(markdown.table(rows))


def _span(element: Any, properties: str, name: str) -> int:
    """How many columns a property of a row or a cell says; 0: it says none."""
    said = element.find(f"{{*}}{properties}/{{*}}{name}")
    stated = "" if said is None else value(said)
    return min(int(stated), _WIDEST) if re.fullmatch("[0-9]{1,9}", stated) else 0
