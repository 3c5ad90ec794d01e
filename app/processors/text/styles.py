"""What the styles of a DOCX make of its paragraphs and runs (ECMA-376-1 §17.7), as far as Markdown can say it."""

import re
from typing import Any, NamedTuple

from app.processors.text.labels import value
from app.processors.text.package import is_on

DEEPEST = 6  # levels of headings that Markdown has
_W = "{*}"
_BODY = 9  # the outline level of what is no heading
_MOST_BASES = 20  # styles that one is based on; a loop would have no end
_HEADING = re.compile("heading ([1-9])", re.IGNORECASE)


class _Style(NamedTuple):
    base: str
    outline: int | None
    bold: bool | None
    italic: bool | None


class Styles:
    """Says which paragraphs are headings, and which runs are bold or italic."""

    def __init__(self, styles: Any) -> None:
        """The part of this name; None: there is none."""
        found = () if styles is None else styles.iterfind(f"{_W}style")
        self._styles = {value(style, "styleId"): _style(style) for style in found}

    def heading(self, paragraph: Any) -> int:
        """Return the level of a heading, from 1 to DEEPEST, or 0 for any other paragraph."""
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return 0
        outline = _outline(properties)
        if outline is None and (named := properties.find(f"{_W}pStyle")) is not None:
            outline = self._inherited(value(named), "outline")
        return 0 if outline is None or outline >= _BODY else min(outline + 1, DEEPEST)

    def emphasis(self, run: Any) -> tuple[bool, bool]:
        """Return whether a run is bold, and whether it is italic."""
        properties = run.find(f"{_W}rPr")
        if properties is None:
            return False, False
        bold, italic = _toggle(properties, "b"), _toggle(properties, "i")
        if (named := properties.find(f"{_W}rStyle")) is not None:
            bold = self._inherited(value(named), "bold") if bold is None else bold
            italic = self._inherited(value(named), "italic") if italic is None else italic
        return bool(bold), bool(italic)

    def _inherited(self, name: str, what: str) -> Any:
        for _ in range(_MOST_BASES):
            style = self._styles.get(name)
            if style is None:
                break
            if (found := getattr(style, what)) is not None:
                return found
            name = style.base
        return None


def _style(element: Any) -> _Style:
    base, named = (element.find(f"{_W}{each}") for each in ("basedOn", "name"))
    paragraph, run = (element.find(f"{_W}{each}") for each in ("pPr", "rPr"))
    outline = None if paragraph is None else _outline(paragraph)
    if outline is None and named is not None:
        outline = _meant_by(value(named))
    return _Style(
        "" if base is None else value(base),
        outline,
        None if run is None else _toggle(run, "b"),
        None if run is None else _toggle(run, "i"),
    )


def _meant_by(name: str) -> int | None:
    """The outline level of a style that Word knows by its name, which is English in every language."""
    if heading := _HEADING.fullmatch(name):
        return int(heading[1]) - 1
    return 0 if name.casefold() == "title" else None


def _outline(properties: Any) -> int | None:
    level = properties.find(f"{_W}outlineLvl")
    stated = "" if level is None else value(level)
    return int(stated) if re.fullmatch("[0-9]", stated) else None


def _toggle(properties: Any, name: str) -> bool | None:
    element = properties.find(f"{_W}{name}")
    return None if element is None else is_on(element)
