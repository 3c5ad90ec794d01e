"""The text of a DOCX: a walk through WordprocessingML (ECMA-376-1 §17) by local names, Transitional or Strict."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO
from zipfile import ZipFile

from app.processors.text.labels import Labels, symbol, value
from app.processors.text.output import Form, Text, clean, language_tag, tidy
from app.processors.text.package import Package, broken_is_left_out, etree, is_on, local_name

MAX_INCLUDED = 3  # documents within documents

_MAX_GAP = 100  # characters: empty paragraphs may be many
APART = {"txbxContent", "chart", "relIds"}  # within a paragraph, and on lines of their own
# Skipped are properties, whose tabs are no text, what was deleted or moved away, how to pronounce it, and the second
# copy of a text box. _SEPARATORS: at the end of an element, the first separator is replaced by the second.
_PROPERTIES = {"pPr", "sectPr", "sdtPr", "tabLst", "tblPr", "tcPr", "trPr"}
SKIPPED = _PROPERTIES | {"del", "delText", "Fallback", "instrText", "moveFrom", "rt"}
_CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_SEPARATORS = {"p": ("", "\n"), "tc": ("\n", "\t"), "tr": ("\t", "\n")}
_BEFORE, _BEHIND = ("header",), ("footer", "footnotes", "endnotes", "comments")


def read(file: BinaryIO, characters: int) -> dict[str, Any]:
    """Return the result for a DOCX, of which at most `characters` of text are read."""
    return read_by(Walk, file, characters)


def read_by(kind: "type[Walk]", file: BinaryIO, characters: int) -> dict[str, Any]:
    """Return the result for a DOCX by one of the walks, of which at most `characters` of text are read.

    Only the main part must be sound: what else is missing or broken is left out, as viewers do. Raises what the parser
    raises for it.
    """
    text, form = Text(characters), Form()
    with ZipFile(file) as archive:
        package = Package(archive)
        walk = kind(package, form)
        for number, piece in enumerate(walk.document()):
            text.add(piece if number else piece.lstrip("\n"))
            if text.truncated:
                break
        properties = package.properties()
    text.flush()
    return {
        "engine": "docx",
        "pages": None,
        "plain_pages": [],
        "page_count": None,
        "words": text.words,
        "truncated": text.truncated,
        "form": form.fields,
        "language": walk.language or language_tag(properties.get("language")),
        "metadata": tidy(properties.get, datetime.fromisoformat),
    }


class Walk:
    """Yields the visible text of a document: each paragraph and each row of a table is a line; tabs separate cells."""

    def __init__(self, package: Package, form: Form, depth: int = 0) -> None:
        self._package = package
        self._form = form
        self._depth = depth
        self._labels = Labels(None, None)
        self._gap = ""  # before what comes next
        self._has_said = False
        self.language: str | None = None

    def document(self) -> Iterator[str]:
        """Headers, the body, footers, notes and comments."""
        main = self._package.parsed(self._package.main)
        related: Mapping[str, tuple[str, str]] = {}
        with broken_is_left_out():
            related = self._package.related(self._package.main)
        parts = dict(related.values())
        numbering, styles = (self._extra(parts.get(kind)) for kind in ("numbering", "styles"))
        with broken_is_left_out():
            self.take(numbering, styles)
        if styles is not None and (lang := styles.find("{*}docDefaults//{*}lang")) is not None:
            self.language = language_tag(value(lang))
        yield from self._others(related, _BEFORE)
        yield from self._text(main.find("{*}body"), related)
        yield from self._others(related, _BEHIND)

    def take(self, numbering: Any, styles: Any) -> None:
        """Take in the parts of these names; None: there is none."""
        self._labels = Labels(numbering, styles)

    def _others(self, related: Mapping[str, tuple[str, str]], kinds: tuple[str, ...]) -> Iterator[str]:
        for wanted in kinds:
            for target in dict.fromkeys(target for kind, target in related.values() if kind == wanted):
                if (part := self._extra(target)) is not None:
                    own: Mapping[str, tuple[str, str]] = {}
                    with broken_is_left_out():
                        own = self._package.related(target)
                    yield from self._text(part, own)

    def _extra(self, name: str | None) -> Any:
        found: list[Any] = []
        with broken_is_left_out():
            found += [self._package.parsed(name)] if name else []
        return found[0] if found else None

    def _text(self, root: Any, related: Mapping[str, tuple[str, str]]) -> Iterator[str]:
        pending = ""  # the label of a paragraph of which nothing was yielded yet
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            name = local_name(element)
            if event == "end":
                old, new = _SEPARATORS.get(name, ("", ""))
                self._gap = (self._gap.removesuffix(old) + new)[-_MAX_GAP:]
                if name == "p":
                    pending = ""
                continue
            if name == "p":
                label = self._labels.of(element).text
                pending = label and f"{label}\t"
                continue
            if name in SKIPPED or (name == "r" and is_hidden(element)):
                if name == "sdtPr":
                    self._read_control(element)
                walk.skip_subtree()
                continue
            if name == "altChunk":
                yield from self._included(related.get(value(element, "id")))
                continue
            if name in APART and self._has_said and not self._gap:
                self._gap = "\n"
            if text := self._of(name, element, related):
                yield self._gap + pending + text
                self._gap = pending = ""
                self._has_said = True

    def _of(self, name: str, element: Any, related: Mapping[str, tuple[str, str]]) -> str:
        """The text that an element itself stands for."""
        text = _CHARACTERS.get(name, "")
        match name:
            case "t":
                text = clean(element.text or "")
            case "sym":
                text = symbol(value(element, "font"), value(element, "char"))
            case "textpath":
                text = clean(value(element, "string"))
            case "checkBox":
                states = (element.find(f"{{*}}{each}") for each in ("checked", "default"))
                text = "☒" if any(is_on(state) for state in states if state is not None) else "☐"
            case "chart":
                text = self._drawn(related.get(value(element, "id")), ("strCache", "t"))
            case "relIds":
                text = self._drawn(related.get(value(element, "dm")), ("t",))
        return text

    def _drawn(self, relation: tuple[str, str] | None, kinds: tuple[str, ...]) -> str:
        """The text of a chart or of SmartArt, a line for each."""
        part = self._extra(relation[1]) if relation else None
        if part is None:
            return ""
        said: list[str] = []
        for element in part.iter():
            name = local_name(element)
            if name == "t" and "t" in kinds:
                said.append(element.text or "")
            elif name == "strCache" and name in kinds:
                said += [each.text or "" for each in element.iterfind(".//{*}v")]
        return "".join(f"{clean(each)}\n" for each in dict.fromkeys(filter(None, said)))

    def _included(self, relation: tuple[str, str] | None) -> Iterator[str]:
        """The text of a document that Word puts in the place of a reference."""
        if relation is None or self._depth >= MAX_INCLUDED:
            return
        with broken_is_left_out(), ZipFile(BytesIO(self._package.read(relation[1]))) as archive:
            for piece in self._within(Package(archive)).document():
                yield self._gap + piece
                self._gap = ""
            self._gap = "\n"

    def _within(self, package: Package) -> "Walk":
        """A walk through a document within this one."""
        return type(self)(package, self._form, self._depth + 1)

    def _read_control(self, properties: Any) -> None:
        """Add a content control that has a name to the form."""
        names = (properties.find(f"{{*}}{each}") for each in ("alias", "tag"))
        name = next((text for each in names if each is not None and (text := value(each))), None)
        content = properties.getparent().find("{*}sdtContent")
        if name and content is not None:
            self._form.add(name, "".join(each.text or "" for each in content.iter("{*}t")))


def is_hidden(run: Any) -> bool:
    vanish = run.find("{*}rPr/{*}vanish")
    return vanish is not None and is_on(vanish)
