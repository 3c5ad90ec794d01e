"""Conditional and range requests (RFC 9110 §13, §14): ETag, If-Match, If-None-Match, Range and If-Range."""

import re
from dataclasses import dataclass

from fastapi import Request

from app.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


@dataclass(frozen=True, slots=True)
class Span:
    """`length` bytes from the offset `start`, in a file of `total` bytes."""

    start: int
    length: int
    total: int
    partial: bool = True

    @property
    def status(self) -> int:
        """Partial Content or OK."""
        return 206 if self.partial else 200

    @property
    def headers(self) -> dict[str, str]:
        """Content-Length and, if it is partial, Content-Range."""
        sent = {"Content-Range": f"bytes {self.start}-{self.start + self.length - 1}/{self.total}"}
        return {"Content-Length": str(self.length), **(sent if self.partial else {})}


def requested_span(request: Request, size: int, etag: str) -> Span:
    """The span that `Range` requests from a file of `size` bytes.

    The whole file without a Range, for several ranges (which a server may ignore), and when `If-Range` names another
    ETag. Raises RangeNotSatisfiable.
    """
    whole = Span(0, size, size, partial=False)
    asked = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if asked is None or asked[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return whole
    first, last = asked.groups()
    if not first:  # the last n bytes
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last or size - 1), size - 1)
        if last and int(last) < start:
            return whole  # invalid, so ignored (§14.1.1)
    if start > end:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return Span(start, end - start + 1, size)


def unchanged(request: Request, etag: str) -> bool:
    """Whether If-None-Match names this ETag, so that the response is 304 (weak comparison)."""
    header = ", ".join(request.headers.getlist("if-none-match"))
    return header.strip() == "*" or etag.strip('"') in {value for _, value in _ETAG.findall(header)}


def expected_versions(request: Request) -> frozenset[int] | None:
    """The versions that If-Match allows (strong comparison), or None when it allows any."""
    header = request.headers.getlist("if-match")
    if not header or header == ["*"]:
        return None
    tags = _ETAG.findall(", ".join(header))
    return frozenset(int(value) for weak, value in tags if not weak and value.isdecimal() and len(value) < 10)
