"""The parts of a DOCX, a package (ECMA-376-2), and its elements by their local names, Transitional or Strict."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from posixpath import basename, dirname, join, normpath
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from app.processors.text.labels import value
from app.processors.text.output import LIBXML2_NO_MEMORY

etree: Any = import_module("lxml.etree")

EXTERNAL = "external"

_OFF = {"0", "false", "off", "none"}


def local_name(element: Any) -> str:
    """The local name. Comments and processing instructions have none."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def is_on(element: Any) -> bool:
    """Whether a property that is there is on (ECMA-376-1 §17.17.4)."""
    return (value(element) or "true").lower() not in _OFF


class Package:
    """The parts of a package, by what relates to them (ECMA-376-2 §9.3)."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._names = {name.casefold(): name for name in archive.namelist()}

    @cached_property
    def main(self) -> str:
        """The name of the main part. Raises KeyError."""
        return dict(self.related("").values())["officedocument"]

    def related(self, part: str) -> Mapping[str, tuple[str, str]]:
        """The kind and the name of each part that a part is related to, by the relationship's id. What lies outside of
        the package is of the kind EXTERNAL, and its name is a URL."""
        rels = join(dirname(part), "_rels", f"{basename(part)}.rels")
        found = {}
        for each in self.parsed(rels).iterfind("{*}Relationship"):
            target = each.get("Target", "")
            if each.get("TargetMode", "").casefold() == EXTERNAL:
                found[each.get("Id", "")] = (EXTERNAL, target)
            else:
                name = normpath(join("/", dirname(part), unquote(target))).lstrip("/")
                found[each.get("Id", "")] = (each.get("Type", "").rpartition("/")[2].casefold(), name)
        return found

    def read(self, name: str) -> bytes:
        """Raises KeyError."""
        return self._archive.read(self._names[name.casefold()])

    def parsed(self, name: str) -> Any:
        """A part as XML. Raises KeyError and XMLSyntaxError."""
        return etree.fromstring(self.read(name), etree.XMLParser(resolve_entities=False, huge_tree=True))

    def properties(self) -> dict[str, Any]:
        """The core properties by name."""
        found: dict[str, Any] = {}
        with broken_is_left_out():
            for kind, target in self.related("").values():
                if kind == "core-properties":
                    found |= {local_name(item): item.text for item in self.parsed(target)}
        found["author"] = found.pop("creator", None)
        return found


@contextmanager
def broken_is_left_out() -> Iterator[None]:
    """For parts that a document can do without. Raises MemoryError."""
    try:
        yield
    except (MemoryError, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        if getattr(error, "code", None) == LIBXML2_NO_MEMORY:
            raise MemoryError from None
