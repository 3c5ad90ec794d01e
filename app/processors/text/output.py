"""What the child prints of a document."""

import io
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from app.processors.sandbox.output import emit

METADATA = ("title", "author", "subject", "keywords", "creator", "producer", "created", "modified")
METADATA_CHARACTERS = 1000
PIECE = 32 * 1024  # characters of text in one line of output, or up to twice as many; the last line has what is left
LIBXML2_NO_MEMORY = 2  # XML_ERR_NO_MEMORY: lxml raises it as a syntax error
FORM_CHARACTERS = 50_000  # of the names and values of form fields …
_FIELD = 20  # … each of which counts for so many more

_LANGUAGE = re.compile("[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}")
_NEWLINE = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Text:
    """Emits up to `characters` of text, in pieces as they come. `words` counts them, `truncated`: some were cut off."""

    def __init__(self, characters: int) -> None:
        self.words = 0
        self.truncated = False
        self._in_word = False
        self._left = characters
        self._piece = io.StringIO()

    def add(self, text: str) -> int:
        """Add some text. Returns how many characters of it were taken."""
        taken = text[: self._left]
        self._left -= len(taken)
        self.truncated = self.truncated or len(taken) < len(text)
        self.words += len(taken.split()) - (self._in_word and not taken[:1].isspace() and bool(taken))
        self._in_word = not taken[-1:].isspace() if taken else self._in_word
        for start in range(0, len(taken), PIECE):
            self._piece.write(taken[start : start + PIECE])
            if self._piece.tell() >= PIECE:
                self.flush()
        return len(taken)

    def flush(self) -> None:
        """Emit what was added since the last time."""
        emit({"text": self._piece.getvalue()})
        self._piece = io.StringIO()


class Form:
    """The fields of a form by name, as far as they are few enough to be told."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._left = FORM_CHARACTERS

    def add(self, name: str, value: str) -> None:
        """Add a field, unless one of this name is there."""
        name, value = clean(name).strip(), clean(value).strip()
        size = len(name) + len(value) + _FIELD
        if name and name not in self._values and size <= self._left:
            self._values[name] = value
            self._left -= size

    @property
    def fields(self) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in self._values.items()]


def clean(text: str) -> str:
    """Return text that every JSON parser and database accepts: no control characters except tab and newline, no
    lone surrogates."""
    return _JUNK.sub("", _NEWLINE.sub("\n", text))


def language_tag(stated: str | None) -> str | None:
    """Return the language that a document states, if it is one (RFC 5646)."""
    stated = (stated or "").strip()
    return stated if _LANGUAGE.fullmatch(stated) else None


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
