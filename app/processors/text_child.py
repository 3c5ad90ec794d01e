"""Reads one document and prints its text: a script for a process of its own, as parsers crash, hang and swallow memory.

The document is standard input, the argument is JSON. Prints JSON lines: `{"progress": 0.5}` now and then, at the end
`{"result": {"text", "pages", "truncated", "metadata"}}` or `{"error": code}`. Parsers are imported under the limits.
"""

import ctypes
import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, BinaryIO

METADATA = ("title", "author", "subject", "keywords", "creator", "producer", "created", "modified")
METADATA_CHARACTERS = 1000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PDFIUM_LOCKED = 4, 5  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
LIBXML2_NO_MEMORY = 2  # XML_ERR_NO_MEMORY: lxml raises it as a syntax error

NEWLINE = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# U+0002 is PDFium's mark for a hyphen that only broke a word at the end of a line: dropped, the word is whole again.
JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# WordprocessingML (ECMA-376-1 §17) by local name. Skipped: a paragraph's settings, whose tabs are no text; what was
# deleted or moved away; the second copy of a text box. An element's end turns the separator so far into its own.
SKIPPED = {"pPr", "del", "moveFrom", "Fallback"}
CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
SEPARATORS = {"p": ("", "\n"), "tc": ("\n", "\t"), "tr": ("\t", "\n")}


def main() -> None:
    task = json.loads(sys.argv[1])
    confine(task["memory"], task["seconds"], task["parent"])
    read = read_pdf if task["content_type"] == "application/pdf" else read_docx
    try:
        emit({"result": read(sys.stdin.buffer, task["characters"], task["pages"])})
    except ImportError:  # a broken installation is not the document's fault
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise what they like
        emit({"error": code(error)})


def confine(memory: int, seconds: int, parent: int) -> None:
    """Give up what reading a document does not need. Limits that the platform does not have are left out."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all; the parent lets us finish
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_DUMPABLE, 0)  # RLIMIT_CORE does not stop a core that is piped to a program
    if os.getppid() != parent:  # it died before it could take us along
        os._exit(1)
    for name, limit in {"AS": memory, "CPU": seconds, "NOFILE": 16, "NPROC": 0, "FSIZE": 0, "CORE": 0}.items():
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit + (name == "CPU")))


def emit(line: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def code(error: Exception) -> str:
    """What the error says about the document, as one of the codes that the parent knows."""
    if isinstance(error, MemoryError) or getattr(error, "code", None) == LIBXML2_NO_MEMORY:
        return "text-out-of-memory"
    return "password-protected" if getattr(error, "err_code", None) in PDFIUM_LOCKED else "malformed-document"


def read_pdf(file: BinaryIO, characters: int, pages: int) -> dict[str, Any]:
    pdf = import_module("pypdfium2").PdfDocument(file)
    names = {"created": "CreationDate", "modified": "ModDate"}
    metadata = tidy(lambda name: pdf.get_metadata_value(names.get(name, name.title())), pdf_date)
    text, truncated = collect(pdf_text(pdf, min(len(pdf), pages)), characters)
    return {"text": text, "pages": len(pdf), "truncated": truncated or len(pdf) > pages, "metadata": metadata}


def pdf_text(pdf: Any, pages: int) -> Iterator[str]:
    """The text of the pages, a form feed between each and the next; none after the last that has text."""
    gap = ""
    for index in range(pages):
        page = pdf[index]
        if text := clean(page.get_textpage().get_text_bounded()).strip():
            yield gap + text
            gap = ""
        gap += "\f"
        page.close()
        if (index + 1) * 100 // pages > index * 100 // pages:
            emit({"progress": (index + 1) / pages})


def pdf_date(value: str) -> datetime:
    """`D:20240131120000+02'00'`, of which only the year is required; no zone is UTC (ISO 32000-2 §7.9.4)."""
    [(digits, hours, minutes)] = re.findall(r"^(?:D:)?(\d{4,14})(?:([+-]\d\d)'?(\d\d)?)?", value)
    whole = digits + "0101000000"[len(digits) - 4 :]
    return datetime.strptime(whole + (hours or "+00") + (minutes or "00"), "%Y%m%d%H%M%S%z")


def read_docx(file: BinaryIO, characters: int, _: int) -> dict[str, Any]:
    document = import_module("docx").Document(file)
    # Not document.core_properties: python-docx makes some up where there are none.
    core = [rel.target_part for rel in document.part.package.rels.values() if rel.reltype.endswith("/core-properties")]
    properties = {str(item.tag).rpartition("}")[2]: item.text for part in core for item in getattr(part, "element", ())}
    properties["author"] = properties.pop("creator", None)
    metadata = tidy(properties.get, datetime.fromisoformat)
    text, truncated = collect(docx_text(document.element.body), characters)
    return {"text": text, "pages": None, "truncated": truncated, "metadata": metadata}


def docx_text(body: Any) -> Iterator[str]:
    """All visible text: a paragraph or a table's row is a line, cells are divided by tabs."""
    gap = ""
    walk = import_module("lxml.etree").iterwalk(body, events=("start", "end"))
    for event, element in walk:
        name = element.tag.rpartition("}")[2]
        if event == "end":
            old, new = SEPARATORS.get(name, ("", ""))
            gap = gap.removesuffix(old) + new
        elif name in SKIPPED:
            walk.skip_subtree()
        elif text := CHARACTERS.get(name) or (name == "t" and clean(element.text or "")):
            yield gap + text
            gap = ""


def collect(parts: Iterable[str], characters: int) -> tuple[str, bool]:
    """The parts joined, taken no further than needed, and whether any text was cut off."""
    text = io.StringIO()
    for part in parts:
        text.write(part)
        if text.tell() > characters:
            break
    return text.getvalue()[:characters], text.tell() > characters


def clean(text: str) -> str:
    """Text that every JSON parser and database takes: no control characters but tab and newline, no half pairs."""
    return JUNK.sub("", NEWLINE.sub("\n", text))


def tidy(get: Callable[[str], str | None], date: Callable[[str], datetime]) -> dict[str, str]:
    """The metadata that is there and makes sense, each on one line; dates in RFC 3339, UTC."""
    found: dict[str, str] = {}
    for name in METADATA:
        with suppress(ValueError, OverflowError):  # half a surrogate pair, the 31st of February
            text = " ".join(clean(get(name) or "").split())[:METADATA_CHARACTERS]
            if name in ("created", "modified"):
                moment = date(text)
                text = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()[:19] + "Z"
            found |= {name: text} if text else {}
    return found


if __name__ == "__main__":
    main()
