"""Reads one document and prints its text. Runs as a script in a process of its own: parsers crash, hang and use memory.

The document is standard input; the argument is a JSON object (see `main`). Output is JSON lines: `{"progress": 0.5}`
now and then and `{"result": {"text", "pages", "truncated", "metadata"}}` or `{"error": code}` at the end. Parsers are
imported only once the limits are in force.
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
from functools import partial
from importlib import import_module
from posixpath import normpath
from typing import Any, BinaryIO
from zipfile import ZipFile

METADATA = ("title", "author", "subject", "keywords", "creator", "producer", "created", "modified")
METADATA_CHARACTERS = 1000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PDFIUM_LOCKED = 4, 5  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
LIBXML2_NO_MEMORY = 2  # XML_ERR_NO_MEMORY: lxml raises it as a syntax error

NEWLINE = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# PDFium marks a hyphen that only breaks a word at the end of a line by U+0002: without it the word is whole again.
JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# Elements of WordprocessingML (ECMA-376-1 §17) by local name. Skipped are a paragraph's properties, whose tabs are no
# text, what was deleted or moved away, and the second copy of a text box. SEPARATORS: at the end of an element, the
# first separator is replaced by the second.
SKIPPED = {"pPr", "del", "moveFrom", "Fallback"}
CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
SEPARATORS = {"p": ("", "\n"), "tc": ("\n", "\t"), "tr": ("\t", "\n")}


def main() -> None:
    """Read the task `{"memory", "seconds", "parent", "content_type", "characters", "pages"}` and print its result."""
    task = json.loads(sys.argv[1])
    _confine(task["memory"], task["seconds"], task["parent"])
    read = _read_pdf if task["content_type"] == "application/pdf" else _read_docx
    try:
        _emit({"result": read(sys.stdin.buffer, task["characters"], task["pages"])})
    except ImportError:  # the installation is broken, not the document
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        _emit({"error": _code(error)})


def _confine(memory: int, seconds: int, parent: int) -> None:
    """Limit this process to `memory` bytes and `seconds` of processor time, and drop what reading does not need.

    Ends the process if `parent` is no longer its parent. Limits that the platform lacks are left out.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all; the parent decides when to stop
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_DUMPABLE, 0)  # RLIMIT_CORE does not prevent a core dump that is piped to a program
    if os.getppid() != parent:  # it died before PR_SET_PDEATHSIG was set
        os._exit(1)
    limits = {"AS": memory, "CPU": seconds, "NOFILE": 16, "NPROC": 0, "FSIZE": 0, "CORE": 0}
    for name, limit in limits.items():
        hard_limit = limit + 1 if name == "CPU" else limit  # SIGXCPU at the soft limit, SIGKILL at the hard one
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, hard_limit))


def _emit(line: Mapping[str, Any]) -> None:
    """Print one line of output."""
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def _code(error: Exception) -> str:
    """Return the code, known to the parent, for a parser's error."""
    if isinstance(error, MemoryError) or getattr(error, "code", None) == LIBXML2_NO_MEMORY:
        return "text-out-of-memory"
    return "password-protected" if getattr(error, "err_code", None) in PDFIUM_LOCKED else "malformed-document"


def _read_pdf(file: BinaryIO, characters: int, pages: int) -> dict[str, Any]:
    """Return the result for a PDF, of which at most `characters` of text on `pages` pages are read."""
    pdf = import_module("pypdfium2").PdfDocument(file)
    names = {"created": "CreationDate", "modified": "ModDate"}
    metadata = tidy(lambda name: pdf.get_metadata_value(names.get(name, name.title())), pdf_date)
    text, truncated = _collect(_pdf_text(pdf, min(len(pdf), pages)), characters)
    return {"text": text, "pages": len(pdf), "truncated": truncated or len(pdf) > pages, "metadata": metadata}


def _pdf_text(pdf: Any, pages: int) -> Iterator[str]:
    """Yield the text of the pages, with a form feed between each page and the next, up to the last that has text.

    Emits the progress whenever its whole percentage changes.
    """
    gap = ""
    percent = 0
    for index in range(pages):
        page = pdf[index]
        if text := clean(page.get_textpage().get_text_bounded()).strip():
            yield gap + text
            gap = ""
        gap += "\f"
        page.close()
        done = index + 1
        if done * 100 // pages != percent:
            percent = done * 100 // pages
            _emit({"progress": done / pages})


def pdf_date(value: str) -> datetime:
    """Parse a date such as `D:20240131120000+02'00'` (ISO 32000-2 §7.9.4). Raises ValueError.

    Only the year is required, and a date without a zone is in UTC.
    """
    match = re.match(r"(?:D:)?(\d{4,14})(?:([+-]\d\d)'?(\d\d)?)?", value)
    if match is None:
        raise ValueError("not a PDF date")
    digits, hours, minutes = match.groups()
    whole = digits + "0101000000"[len(digits) - 4 :]
    return datetime.strptime(whole + (hours or "+00") + (minutes or "00"), "%Y%m%d%H%M%S%z")


def _read_docx(file: BinaryIO, characters: int, _: int) -> dict[str, Any]:
    """Return the result for a DOCX, of which at most `characters` of text are read."""
    with ZipFile(file) as package:
        [main] = _docx_parts(package, "/officeDocument")
        core = _docx_parts(package, "/core-properties")
    properties = {str(item.tag).rpartition("}")[2]: item.text for part in core for item in part}
    properties["author"] = properties.pop("creator", None)
    metadata = tidy(properties.get, datetime.fromisoformat)
    text, truncated = _collect(_docx_text(main.find("{*}body")), characters)
    return {"text": text, "pages": None, "truncated": truncated, "metadata": metadata}


def _docx_parts(package: ZipFile, kind: str) -> list[Any]:
    """Return the parts, as XML, that the package has a relationship of this kind to (ECMA-376-2 §9.3).

    A relationship to a part that is missing is ignored, as viewers do.
    """
    etree = import_module("lxml.etree")
    parse = partial(etree.fromstring, parser=etree.XMLParser(resolve_entities=False))
    relationships = parse(package.read("_rels/.rels")).iterfind("{*}Relationship")
    targets = [each.get("Target") for each in relationships if each.get("Type", "").endswith(kind)]
    names = [normpath(f"/{target}").lstrip("/") for target in targets]
    return [parse(package.read(name)) for name in names if name in package.namelist()]


def _docx_text(body: Any) -> Iterator[str]:
    """Yield all visible text. Each paragraph and each row of a table is a line; tabs separate cells."""
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


def _collect(parts: Iterable[str], characters: int) -> tuple[str, bool]:
    """Join parts up to so many characters, and return the text and whether any was cut off."""
    text = io.StringIO()
    for part in parts:
        text.write(part)
        if text.tell() > characters:
            break
    return text.getvalue()[:characters], text.tell() > characters


def clean(text: str) -> str:
    """Return text that every JSON parser and database accepts: no control characters except tab and newline, no
    lone surrogates."""
    return JUNK.sub("", NEWLINE.sub("\n", text))


def tidy(get: Callable[[str], str | None], date: Callable[[str], datetime]) -> dict[str, str]:
    """Return the metadata that is present and valid, each value on one line, dates in RFC 3339 and UTC."""
    found: dict[str, str] = {}
    for name in METADATA:
        with suppress(ValueError, OverflowError):  # a lone surrogate, the 31st of February
            text = " ".join(clean(get(name) or "").split())[:METADATA_CHARACTERS]
            if name in ("created", "modified"):
                moment = date(text)
                text = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()[:19] + "Z"
            found |= {name: text} if text else {}
    return found


if __name__ == "__main__":
    main()
