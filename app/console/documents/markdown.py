"""Reads Markdown as processors write it (see `app.processors.text.markdown`): blocks, which a template shows.

What it does not know, HTML among it, stays text. Takes time in proportion to the text, whoever wrote that.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

_DEEPEST = 8  # level of a list within others; what is deeper is text

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")
_RULE = re.compile(r"[-*_](?:[ \t]*[-*_]){2,}[ \t]*")
_ITEM = re.compile(r"( {0,3})([-*+]|[0-9]{1,9}[.)])([ \t]+)(?=\S)")
_DELIMITERS = re.compile(r"\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*")
_CELL = re.compile(r"((?:[^\\|]|\\.|\\$)*)(?:\||$)")  # matches wherever it is tried, so that nothing is tried twice
_TOKEN = re.compile(
    r"\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|(?P<broken>\\\n|[ ]{2,8}\n|<br>)"
    r"|`(?P<code>[^`\n]+)`"
    r"|\[(?P<said>(?:[^\\\[\]]|\\.)+)\]\((?P<link>(?:https?|mailto):[^()\s]*)\)"
    r"|\[\^(?P<note>[0-9]{1,6})\]"
    r"|(?P<stars>\*{1,3})(?!\*)"
)


class Span(NamedTuple):
    """Text in one style. Without text, it is the end of a line."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False
    link: str = ""


Line = Sequence[Span]


class Block(NamedTuple):
    """A heading of a level from 1 on, none of which is left out; a paragraph; a list with the blocks of each item and
    its first number, 0 if it has none; a table, the first row of which is its head; code; or a rule."""

    kind: Literal["heading", "paragraph", "list", "table", "code", "rule"]
    line: Line = ()
    number: int = 0
    items: "Sequence[list[Block]]" = ()
    rows: Sequence[list[Line]] = ()
    text: str = ""


def blocks(text: str) -> list[Block]:
    """What the Markdown says."""
    found, level = list[Block](), 0
    for block in _Reader(text.split("\n")).blocks():
        level = min(block.number, level + 1) if block.kind == "heading" else level
        found.append(block._replace(number=level) if block.kind == "heading" else block)
    return found


class _Reader:
    def __init__(self, lines: Sequence[str], depth: int = 0) -> None:
        self._lines = lines
        self._depth = depth
        self._next = 0

    def blocks(self) -> Iterator[Block]:
        while self._next < len(self._lines):
            line = self._lines[self._next]
            if not line.strip():
                self._next += 1
            elif heading := _HEADING.fullmatch(line):
                self._next += 1
                yield Block("heading", spans(heading[2]), len(heading[1]))
            elif line.startswith("```"):
                yield Block("code", text="\n".join(self._code()))
            elif _RULE.fullmatch(line):
                self._next += 1
                yield Block("rule")
            elif self._is_table():
                yield Block("table", rows=list(self._rows()))
            elif self._depth < _DEEPEST and (item := _ITEM.match(line)):
                yield self._list(item[2])
            else:
                yield Block("paragraph", spans("\n".join(self._paragraph())))

    def _code(self) -> Iterator[str]:
        self._next += 1
        while self._next < len(self._lines):
            self._next += 1
            if self._lines[self._next - 1].startswith("```"):
                return
            yield self._lines[self._next - 1]

    def _is_table(self) -> bool:
        two = self._lines[self._next : self._next + 2]
        return len(two) == 2 and two[0].startswith("|") and _DELIMITERS.fullmatch(two[1]) is not None

    def _rows(self) -> Iterator[list[Line]]:
        head = self._next
        while self._next < len(self._lines) and self._lines[self._next].startswith("|"):
            if self._next != head + 1:
                row = self._lines[self._next].removeprefix("|").rstrip()
                yield [spans(cell.strip()) for cell in _CELL.findall(row)[:-1] or [""]]
            self._next += 1

    def _list(self, marker: str) -> Block:
        """The items that follow each other and have markers of this kind."""
        items: list[list[Block]] = []
        number = int(marker[:-1]) if marker[:-1] else 0
        while self._next < len(self._lines):
            item = _ITEM.match(self._lines[self._next])
            if item is None or item[2][-1] != marker[-1]:
                break
            items.append(list(_Reader(self._item(item.end()), self._depth + 1).blocks()))
        return Block("list", number=number, items=items)

    def _item(self, indent: int) -> list[str]:
        """The lines of an item: those that follow it and are indented, or blank."""
        end, found = self._next + 1, [self._lines[self._next][indent:]]
        while end < len(self._lines) and (not self._lines[end].strip() or self._lines[end].startswith(" " * indent)):
            found.append(self._lines[end][indent:])
            end += 1
        self._next = end
        return found

    def _paragraph(self) -> Iterator[str]:
        first = self._next
        while self._next < len(self._lines):
            line = self._lines[self._next]
            if self._next > first and (not line.strip() or self._begins(line)):
                return
            self._next += 1
            yield line.lstrip()

    def _begins(self, line: str) -> bool:
        listed = self._depth < _DEEPEST and _ITEM.match(line)
        return bool(_HEADING.fullmatch(line) or line.startswith("```") or listed) or self._is_table()


def spans(text: str, link: str = "") -> Line:
    """The text of a block, piece by piece."""
    tokens = list(_TOKEN.finditer(text))
    marks = _marks(text, tokens)
    found, bold, italic, end = list[Span](), False, False, 0

    def add(said: str, *, code: bool = False, to: str = link) -> None:
        if said:
            found.append(Span(said, bold, italic, code, to))

    for number, token in enumerate(tokens):
        add(_unbroken(text[end : token.start()]))
        end = token.end()
        if number in marks:
            bold ^= len(token[0]) > 1
            italic ^= len(token[0]) != 2
        elif token["broken"]:
            found.append(Span(""))
        elif token["said"] and not link:
            found += [each._replace(bold=bold or each.bold) for each in spans(token["said"], token["link"])]
        elif token["code"]:
            add(token["code"], code=True)
        else:
            add(token["escaped"] or (f"[{token['note']}]" if token["note"] else token[0]))
    add(_unbroken(text[end:]))
    return list(_merged(found))


def _merged(line: Line) -> Iterator[Span]:
    """Yield neighbours of one style as one."""
    for (is_text, *style), same in groupby(line, lambda span: (bool(span.text), *span[1:])):
        if is_text:
            yield Span("".join(span.text for span in same), *style)
        else:
            yield from same


def _marks(text: str, tokens: Sequence[re.Match[str]]) -> set[int]:
    """Which of the tokens begin and end emphasis: pairs, each of which has text inside."""
    paired, begun = set[int](), dict[str, int]()
    for number, token in enumerate(tokens):
        stars = token["stars"]
        if not stars:
            continue
        if stars in begun and not text[token.start() - 1].isspace():
            first = begun[stars]
            paired |= {first, number}
            begun = {each: place for each, place in begun.items() if place < first}
        elif not text[token.end() : token.end() + 1].isspace():
            begun.setdefault(stars, number)
    return paired


def _unbroken(text: str) -> str:
    """Text in which the ends of lines are no more than blanks."""
    first, *rest = text.split("\n")
    if not rest:
        return text
    *middle, last = rest
    between = [stripped for line in middle if (stripped := line.strip())]
    return " ".join([first.rstrip(), *between, last.lstrip()])
