"""Conditional and range requests, and the choice of a representation (RFC 9110 §12.5, §13, §14)."""

import re
from dataclasses import dataclass

from fastapi import Request

from app.errors import RangeNotSatisfiable
from app.web.body import is_head

_RANGE = re.compile(r"bytes=(\d{0,40})-(\d{0,40})", re.IGNORECASE)  # int() refuses thousands of digits
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q\s*=\s*([\d.]*)\s*)?(?=,|$)", re.IGNORECASE)
_QUALITY = re.compile(r"[01](\.\d{0,3})?")
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

    The whole file without a Range, for HEAD (§14.2), for several ranges (which a server may ignore), and when
    `If-Range` names another ETag. Raises RangeNotSatisfiable.
    """
    whole = Span(0, size, size, partial=False)
    asked = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if is_head(request) or asked is None or not any(asked.groups()) or request.headers.get("if-range", etag) != etag:
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


def prefers_gzip(request: Request, etag: str) -> bool:
    """Whether to send the compressed representation, which has this ETag.

    Of what is requested in part the other one is sent, because clients decode each part by itself; unless `If-Range`
    shows that a part of this one is there already.
    """
    found = _GZIP.search(", ".join(request.headers.getlist("accept-encoding")))
    whole = "range" not in request.headers or request.headers.get("if-range") == etag
    return found is not None and (found[1] is None or found[1].strip("0.") != "") and whole


def prefers_text(request: Request) -> bool:
    """Whether `Accept` gives plain text a higher quality than JSON (RFC 9110 §12.5.1)."""
    given = dict(map(_quality, ",".join(request.headers.getlist("accept")).lower().split(",")))
    text, json = (
        next((given[each] for each in ranges if each in given), 0.0)  # the most specific range decides
        for ranges in (("text/plain", "text/*", "*/*"), ("application/json", "application/*", "*/*"))
    )
    return text > json


def _quality(accepted: str) -> tuple[str, float]:
    """A media range and its quality."""
    media_range, *parameters = (part.strip() for part in accepted.split(";"))
    sent = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    return media_range, float(sent) if _QUALITY.fullmatch(sent) else 1.0


def expected_versions(request: Request) -> frozenset[int] | None:
    """The versions that If-Match allows (strong comparison), or None when it allows any."""
    header = request.headers.getlist("if-match")
    if not header or header == ["*"]:
        return None
    tags = _ETAG.findall(", ".join(header))
    return frozenset(int(value) for weak, value in tags if not weak and value.isdecimal() and len(value) < 10)
