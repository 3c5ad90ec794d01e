"""STORAGE_URL: where files are. What cannot be a place is refused here, in words that do not repeat the value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import parse_qsl, urlsplit

from app import urls

Addressing = Literal["path", "virtual", "auto"]

GRAMMAR = "s3://bucket/prefix?endpoint=https://host&region=…&addressing=path|virtual&verify=true|false|/ca.pem"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# The characters that S3 calls safe, in segments that no proxy or tool takes for `.` or `..`.
_PREFIX = re.compile(r"(?!.*(^|/)\.\.?(/|$))[\w!.'()*-]+(/[\w!.'()*-]+)*", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,64}")
MAX_PREFIX = 512


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on a local disk."""

    path: Path


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an S3 bucket. Without an endpoint, AWS; `prefix` is empty or ends with a slash."""

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: Addressing = "auto"
    verify: bool | str = True


def parse(url: str) -> Folder | Bucket:
    """The place that a URL names. Raises ValueError."""
    if url.startswith("s3://"):
        return _bucket(url)
    if url.startswith("file://"):
        return Folder(urls.file_path(url, "file://"))
    raise ValueError("must be file:///path or s3://bucket/prefix")


def _bucket(url: str) -> Bucket:
    # urlsplit drops control characters silently.
    if not url.isascii() or not url.isprintable():
        raise ValueError("must be printable ASCII")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they come from AWS_ACCESS_KEY_ID and the rest of the AWS chain")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"names no valid bucket; its form is {GRAMMAR}")
    prefix = parts.path.removeprefix("/").removesuffix("/")
    if prefix and (len(prefix) > MAX_PREFIX or not _PREFIX.fullmatch(prefix)):
        raise ValueError("has an unsafe prefix: letters, digits and !_.'()*- between single slashes, no . or ..")
    if parts.fragment:
        raise ValueError(f"has a fragment; its form is {GRAMMAR}")
    options = _options(parts.query)
    endpoint = _endpoint(options.get("endpoint"))
    return Bucket(
        name=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=endpoint,
        region=_region(options.get("region")),
        addressing=_addressing(options.get("addressing", "path" if endpoint else "auto")),
        verify=_verify(options.get("verify", "true")),
    )


def _options(query: str) -> Mapping[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("says something twice")
    if unknown := options.keys() - {"endpoint", "region", "addressing", "verify"}:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}; its form is {GRAMMAR}")
    return options


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    try:
        wrong = not parts.hostname or parts.port == 0
    except ValueError:  # the port is no number
        wrong = True
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if wrong or extras or parts.scheme not in {"http", "https"}:
        raise ValueError("needs an endpoint of the form https://host or http://host:port, and nothing else in it")
    return f"{parts.scheme}://{parts.netloc}"


def _region(region: str | None) -> str | None:
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("has no valid region")
    return region


def _addressing(addressing: str) -> Addressing:
    if addressing not in get_args(Addressing):
        raise ValueError("has an addressing other than path, virtual or auto")
    return cast("Addressing", addressing)


def _verify(verify: str) -> bool | str:
    if verify in {"true", "false"}:
        return verify == "true"
    if not verify.startswith("/") or not Path(verify).is_file():
        raise ValueError("has a verify that is not true, false or the absolute path of a file with CA certificates")
    return verify
