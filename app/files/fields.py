"""Field codes of WordprocessingML (ECMA-376-1 §17.16): what Word is told to compute, and where DDE hides."""

import re
from html import unescape

_SIGNS = tuple("instr".encode(encoding) for encoding in ("utf-8", "utf-16-le"))  # UTF-16 BE has the second one, too
_ATTRIBUTES = rb"""((?:[^>"']|"[^"]*"|'[^']*')*)"""
# An XML parser with a handler for each element takes 20 times as long, and a part may have millions.
_TOKEN = re.compile(
    rb"<(?:!--.*?-->|!\[CDATA\[(.*?)\]\]>|(/?)(?:[^\s<>/:]+:)?(instrText|fldChar|fldSimple)\b" + _ATTRIBUTES + rb">)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(rb"""(?:^|[\s:])(instr|fldCharType)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_DDE = re.compile(r"\s*DDE(AUTO)?\b", re.IGNORECASE)
_QUOTE = re.compile(r'\s*QUOTE((?:\s+"?\d+"?)+)\s*', re.IGNORECASE)  # a text by the numbers of its characters


def may_be_in(data: bytes) -> bool:
    """Return whether a piece of XML may have field codes."""
    return any(sign in data for sign in _SIGNS)


def runs_program(xml: bytes) -> bool:
    """Return whether a field asks another program for data, which starts it."""
    return any(map(_DDE.match, _codes(xml)))


def _codes(xml: bytes) -> list[str]:
    """Return the codes of all fields, whose runs may divide them at will."""
    fields = _Fields()
    text_from: int | None = None  # where the text of an `instrText` goes on
    for token in _TOKEN.finditer(xml):
        cdata, closing, name, attributes = token.groups()
        if text_from is not None:
            fields.add(unescape(xml[text_from : token.start()].decode(errors="replace")))
            fields.add((cdata or b"").decode(errors="replace"))
            text_from = token.end()
        if name == b"instrText":
            text_from = None if closing or attributes.endswith(b"/") else token.end()
        elif name and not closing:
            fields.mark(*_attribute(attributes))
    return fields.end()


class _Fields:
    """The fields of a part as they open and close, one within another."""

    def __init__(self) -> None:
        self._open = [""]  # their codes, outermost first; the first one is outside of all
        self._codes: list[str] = []

    def add(self, code: str) -> None:
        self._open[-1] += code

    def mark(self, attribute: bytes, value: str) -> None:
        """Take note of a field that is whole, or of where one begins, has its code behind it, or ends."""
        if attribute == b"instr":
            self._codes.append(value)
        elif value == "begin":
            self._open.append("")
        elif len(self._open) > 1:
            self._close()
            if value == "separate":  # its result follows, then its end
                self._open.append("")

    def end(self) -> list[str]:
        while self._open:
            self._close()
        return self._codes

    def _close(self) -> None:
        code = self._open.pop()
        self._codes.append(code)
        if self._open and (quoted := _QUOTE.fullmatch(code)):  # what it says becomes a part of the code around it
            numbers = [int(each) for each in re.findall(r"\d{1,6}", quoted[1])]
            self._open[-1] += "".join(chr(each) for each in numbers if each < 0x110000)


def as_utf8(xml: bytes) -> bytes:
    """Return XML in UTF-8 or UTF-16, whose first bytes tell (XML 1.0 appendix F), in UTF-8."""
    if xml.startswith((b"\xff\xfe", b"\xfe\xff")):
        return xml.decode("utf-16", "replace").encode()
    if xml.startswith((b"<\0", b"\0<")):
        return xml.decode("utf-16-le" if xml[1] == 0 else "utf-16-be", "replace").encode()
    return xml


def _attribute(attributes: bytes) -> tuple[bytes, str]:
    """Return the name and the value of the attribute that says what a field does, or empty ones."""
    found = _ATTRIBUTE.search(attributes)
    return (found[1], unescape((found[2] or found[3] or b"").decode(errors="replace"))) if found else (b"", "")
