"""A processor's output as JSON (RFC 8259), in pieces: what is large is never whole in memory."""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from app.processors.base import LongList, LongText, Permanent

LONG = 32 * 1024  # characters of a string that are encoded at once: to encode many more holds up other threads
MAX_DEPTH = 100  # levels of a result
_SHORT = 8 * 1024  # values, and characters in them
_AT_ONCE = 1024**2  # bytes that are compressed before others get their turn
_LEVEL = 3  # 30 to 80 MB/s of text, and a tenth larger than with the default

_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def encode(data: Mapping[Any, object]) -> Iterator[str]:
    """Yield the JSON of an object. Raises TypeError, ValueError or RecursionError for what JSON cannot hold."""
    opening = "{"
    for key, value in data.items():
        yield opening + _encoder.encode({key: 0})[1:-2]
        if isinstance(value, LongText):
            yield from _string(value)
        elif isinstance(value, LongList):
            yield from _list(value)
        elif isinstance(value, str) and len(value) > LONG:
            yield from _string(value[start : start + LONG] for start in range(0, len(value), LONG))
        else:
            yield from _encoder.iterencode(value)
        opening = ","
    yield "}" if data else "{}"


def limited(pieces: Iterator[str], max_bytes: int) -> Iterator[bytes]:
    """Yield the pieces in UTF-8. Raises Permanent `output-too-large` beyond `max_bytes`."""
    size = 0
    for each in pieces:
        piece = each.encode()
        size += len(piece)
        if size > max_bytes:
            raise Permanent("output-too-large", f"The result is larger than {max_bytes} bytes.")
        yield piece


def _list(items: LongList) -> Iterator[str]:
    opening = "["
    for item in items:
        yield opening
        yield from encode(item)
        opening = ","
    yield "[]" if opening == "[" else "]"


def _string(pieces: Iterator[str] | LongText) -> Iterator[str]:
    yield '"'
    for piece in pieces:
        yield _encoder.encode(piece)[1:-1]
    yield '"'


def encode_short(data: Mapping[object, object]) -> str | None:
    """Return the JSON of an object if it is certainly short, and of few levels: that takes a fifth of the time.

    Raises as `encode` does.
    """
    level: list[object] = [data]
    left = _SHORT
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, str):
                left -= len(each)
            elif isinstance(each, dict | list | tuple):
                left -= len(each)
                if left < 0:
                    return None
                inner += each
                if isinstance(each, dict):
                    inner += each.values()
        if left < 0:
            return None
        if not inner:
            is_long = any(isinstance(each, LongText | LongList) for each in data.values())
            return None if is_long else _encoder.encode(data)
        level = inner
    return None


def is_deep(value: object) -> bool:
    """Whether a JSON value has more than MAX_DEPTH levels."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        parents = (each for each in level if isinstance(each, dict | list | tuple))
        level = [each for parent in parents for each in (parent.values() if isinstance(parent, dict) else parent)]
        if not level:
            return False
    return True


def compress(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a gzip stream (RFC 1952) of one member: some clients read no second one. Each step takes some 20 ms."""
    compressor = zlib.compressobj(_LEVEL, wbits=31)
    ready, size = bytearray(), 0
    for piece in pieces:
        ready += compressor.compress(piece)
        size += len(piece)
        if size >= _AT_ONCE:
            yield bytes(ready)
            ready, size = bytearray(), 0
    yield bytes(ready) + compressor.flush()
