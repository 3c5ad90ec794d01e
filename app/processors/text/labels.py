"""What Word writes before the paragraphs of a list (ECMA-376-1 §17.9), and symbols of fonts that are not Unicode."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

_PLACE = re.compile(r"%([1-9])")
_MOST = 3999  # that Roman numbers reach
_ROMAN = dict(
    zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("m", "cm", "d", "cd", "c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"),
        strict=True,
    )
)
_W = "{*}"

_GREEK = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖαβχδεφγηιϕκλμνοπθρστυϖωξψζ",
        strict=True,
    )
)
_SYMBOL = _GREEK | dict(
    zip("\xa3\xa5\xae\xac\xb0\xb1\xb3\xb4\xb7\xb9\xd6\xe5\xf2", "≤∞→←°±≥\N{MULTIPLICATION SIGN}•≠√∑∫", strict=True)
)
_WINGDINGS = dict(zip("oxnl§q\xa8\xfe\xfc\xfb\xe0\xdfØvJ(*", "☐☒■●▪❑◻☑✓✗→←➢❖☺☎✉", strict=True))


def symbol(font: str, code: str) -> str:
    """Return a character of a font (ECMA-376-1 §17.3.3.30), where `code` is in hex; "" for one that is not known."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    character = chr(number & 0xFF) if 0xF000 <= number <= 0xF0FF else chr(number % 0x110000)
    known = _SYMBOL if font.lower() == "symbol" else _WINGDINGS if font.lower().startswith("wingdings") else {}
    if character in known:
        return known[character]
    return character if known is not _WINGDINGS and character.isprintable() else ""


def value(element: Any, name: str = "val") -> str:
    """Return an attribute by its local name, or ""."""
    return next((text for key, text in element.attrib.items() if key.rpartition("}")[2] == name), "")


class Label(NamedTuple):
    """What stands before a paragraph, "" if nothing does, and how deep its list is within others, from 0."""

    text: str
    level: int


NO_LABEL = Label("", 0)


class _Level(NamedTuple):
    start: int
    format: str
    text: str
    is_legal: bool


class Labels:
    """Counts the paragraphs of the lists of a document."""

    def __init__(self, numbering: Any, styles: Any) -> None:
        """The parts of these names; None: there is none."""
        self._levels: dict[str, dict[int, _Level]] = {}
        self._lists: dict[str, str] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._styles: dict[str, tuple[str | None, int]] = {}
        self._based_on: dict[str, str] = {}
        if numbering is not None:
            self._read_numbering(numbering)
        if styles is not None:
            self._read_styles(styles)

    def of(self, paragraph: Any) -> Label:
        """Count a paragraph, and return its label."""
        properties = paragraph.find(f"{_W}pPr")
        if properties is None or not self._lists:
            return NO_LABEL
        number, level = _numbered(properties)
        style = properties.find(f"{_W}pStyle")
        if number is None and style is not None:
            inherited, inherited_level = self._of_style(value(style))
            number, level = inherited, level if level is not None else inherited_level
        kind = self._lists.get(number or "")
        found = self._levels.get(kind or "", {}).get(level or 0)
        if number is None or kind is None or found is None:
            return NO_LABEL
        return Label(self._counted(number, kind, level or 0), level or 0)

    def _counted(self, number: str, kind: str, level: int) -> str:
        levels, counts = self._levels[kind], self._counts.setdefault(kind, {})
        first = (number, level)
        if first in self._starts:  # once
            counts[level] = self._starts.pop(first)
        else:
            counts[level] = counts[level] + 1 if level in counts else levels[level].start
        for deeper in [each for each in counts if each > level]:
            del counts[deeper]
        own = levels[level]
        if own.format == "bullet":
            return own.text if own.text.isprintable() and not "\ue000" <= own.text[:1] <= "\uf8ff" else "•"

        def place(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            there = levels.get(at, own)
            count = counts.get(at, there.start)
            return _FORMATS.get("" if own.is_legal else there.format, str)(count)

        return _PLACE.sub(place, own.text)

    def _of_style(self, style: str) -> tuple[str | None, int]:
        for _ in range(20):
            if style in self._styles:
                return self._styles[style]
            style = self._based_on.get(style, "")
        return None, 0

    def _read_numbering(self, numbering: Any) -> None:
        for kind in numbering.iterfind(f"{_W}abstractNum"):
            levels = {_int(value(each, "ilvl")): _level(each) for each in kind.iterfind(f"{_W}lvl")}
            self._levels[value(kind, "abstractNumId")] = levels
        for each in numbering.iterfind(f"{_W}num"):
            number, kind = value(each, "numId"), each.find(f"{_W}abstractNumId")
            if kind is None:
                continue
            self._lists[number] = value(kind)
            for change in each.iterfind(f"{_W}lvlOverride"):
                start = change.find(f"{_W}startOverride")
                if start is not None:
                    self._starts[number, _int(value(change, "ilvl"))] = _int(value(start))

    def _read_styles(self, styles: Any) -> None:
        for style in styles.iterfind(f"{_W}style"):
            name, base, properties = value(style, "styleId"), style.find(f"{_W}basedOn"), style.find(f"{_W}pPr")
            if base is not None:
                self._based_on[name] = value(base)
            number, level = _numbered(properties) if properties is not None else (None, None)
            if number is not None:
                self._styles[name] = number, level or 0


def _numbered(properties: Any) -> tuple[str | None, int | None]:
    """The list and the level that properties of a paragraph name."""
    number, level = properties.find(f"{_W}numPr/{_W}numId"), properties.find(f"{_W}numPr/{_W}ilvl")
    return None if number is None else value(number), None if level is None else _int(value(level))


def _level(element: Any) -> _Level:
    start, kind, text = (element.find(f"{_W}{each}") for each in ("start", "numFmt", "lvlText"))
    return _Level(
        1 if start is None else _int(value(start)),
        "decimal" if kind is None else value(kind),
        "" if text is None else value(text),
        element.find(f"{_W}isLgl") is not None,
    )


def _int(text: str) -> int:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else 0


def _letters(count: int) -> str:
    """Count by a, b … z, aa, bb and so on."""
    return chr(ord("a") + (count - 1) % 26) * ((count - 1) // 26 + 1) if 0 < count <= _MOST else str(count)


def _roman(count: int) -> str:
    if not 0 < count <= _MOST:
        return str(count)
    said = ""
    for worth, letters in _ROMAN.items():
        said += letters * (count // worth)
        count %= worth
    return said


_FORMATS: dict[str, Callable[[int], str]] = {
    "lowerLetter": _letters,
    "upperLetter": lambda count: _letters(count).upper(),
    "lowerRoman": _roman,
    "upperRoman": lambda count: _roman(count).upper(),
    "decimalZero": lambda count: f"{count:02}",
    "none": lambda _: "",
}
