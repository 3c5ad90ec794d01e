"""Names of files as clients send them."""

import re
import unicodedata
from email.errors import MessageError
from email.header import decode_header, make_header
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from python_multipart.multipart import parse_options_header

from app.files.models import ContentType

MAX_FILENAME = 255  # characters
_JOINERS = "\u200c\u200d"  # which letters of Persian and Hindi, and emoji, are spelt with
_EXTENDED = re.compile(rb"""filename\*\s*=\s*"?(utf-8|iso-8859-1)'[^']*'([^;"\s]+)""", re.IGNORECASE)
_ENCODED = re.compile(r"=\?[\w-]+\?[bq]\?[^?\s]*\?=(?:\s+=\?[\w-]+\?[bq]\?[^?\s]*\?=)*", re.IGNORECASE | re.ASCII)

_EXTENSIONS = {str(ContentType.PDF): ".pdf", str(ContentType.DOCX): ".docx"}


def with_extension(name: str, content_type: str) -> str:
    """Return the name with the extension of the type at its end, in at most 255 characters.

    Desktops choose by the extension which program opens a file: `invoice.hta` would run.
    """
    extension = _EXTENSIONS[content_type]
    return name if name.lower().endswith(extension) else name[: MAX_FILENAME - len(extension)] + extension


def disposition(name: str) -> str:
    """Return the Content-Disposition that saves a file under this name (RFC 6266; `filename` is for old clients)."""
    plain = "".join(each if " " <= each <= "~" and each not in '"\\%' else "_" for each in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def sent_name(disposition: bytes, plain: bytes) -> str:
    """Return the filename in a part's Content-Disposition, whose `filename` is `plain`.

    RFC 7578 §4.2 allows no other way to write it. Yet some clients send only `filename*` (RFC 8187), or encoded words
    (RFC 2047), .NET's among them.
    """
    name = plain.decode("utf-8", "replace")
    if name and not _ENCODED.fullmatch(name):
        return name
    if extended := _EXTENDED.search(disposition):
        return unquote(extended[2].decode("latin-1"), extended[1].decode().lower(), "replace")
    try:
        return str(make_header(decode_header(name)))
    except (LookupError, ValueError, MessageError):  # an unknown charset, or bytes that are not of it
        return name


def header_name(disposition: str) -> str:
    """Return the filename in a request's Content-Disposition header, fit for display; empty if it has none.

    `filename*` comes before `filename` (RFC 6266 §4.3).
    """
    sent = disposition.encode("latin-1", "replace")
    extended, (_, options) = _EXTENDED.search(sent), parse_options_header(sent)
    return display_name(sent_name(sent, b"" if extended else options.get(b"filename", b""))) or ""


def renamed(name: str, old_type: str, new_type: str) -> str:
    """Return a document's own name for a file of another type: with its extension."""
    extension = _EXTENSIONS[old_type]
    stem = name[: -len(extension)] if name.lower().endswith(extension) and old_type != new_type else name
    return with_extension(stem, new_type)


def display_name(sent: str) -> str | None:
    """Return a client's filename in a form that is safe to display, or None if nothing is left of it.

    That is its last path component, without control and formatting characters (which could reorder what is displayed)
    but for joiners, in at most 255 characters.
    """
    name = PurePosixPath(sent.replace("\\", "/")).name
    composed = unicodedata.normalize("NFC", name)
    name = "".join(each for each in composed if each in _JOINERS or unicodedata.category(each)[0] != "C").strip()
    if len(name) > MAX_FILENAME:
        suffix = PurePosixPath(name).suffix[:20]
        name = name[: MAX_FILENAME - len(suffix)] + suffix
    return name if name.strip(".") else None
