"""The XML of a package: without type definitions, and in an encoding that all readers agree about."""

from collections.abc import Callable, Mapping
from xml.parsers import expat

from app.errors import UnsafeArchive, UnsupportedDocument


class _RootReached(Exception):
    """Stops the XML parser: a document type definition can only stand before the root element."""


def parse(xml: bytes, on_element: Callable[[str, dict[str, str]], None], *, final: bool) -> None:
    """Parse XML. Raises what `on_element` raises, ExpatError, and UnsafeArchive or UnsupportedDocument for type
    definitions and encodings that packages forbid."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = _check_encoding
    parser.StartDoctypeDeclHandler = _refuse_definition
    parser.StartElementHandler = on_element
    parser.Parse(xml, final)


def check_prolog(start: bytes) -> None:
    """Raise unless an XML part that begins with `start` reaches its root element without a type definition."""

    def stop(_element: str, _attributes: Mapping[str, str]) -> None:
        raise _RootReached

    try:
        parse(start, stop, final=False)
    except _RootReached:
        return
    raise UnsupportedDocument("An XML part of the DOCX does not get to its root element.")


def _check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
    # In other encodings, readers disagree about which bytes are `<`.
    if (encoding or "utf-8").lower() not in {"utf-8", "utf-16"}:
        raise UnsupportedDocument("A part of the DOCX is neither UTF-8 nor UTF-16.")


def _refuse_definition(*_: object) -> None:
    raise UnsafeArchive("A part of the DOCX has a document type definition.")
