"""STORAGE_URL: where the files are. Errors do not repeat the value."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from app.settings import urls

Addressing = Literal["path", "virtual", "auto"]

GRAMMAR = (
    "s3://bucket/prefix?endpoint=https://host&public_endpoint=https://host&region=…"
    "&addressing=path|virtual&verify=true|false|/ca.pem"
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# The characters that S3 calls safe; no segment is `.` or `..`, which proxies and tools would resolve.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_PREFIX = re.compile(r"(?!.*(^|/)\.\.?(/|$))[\w!.'()*-]+(/[\w!.'()*-]+)*", re.ASCII)
MAX_PREFIX = 512

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 5 * 1024**2  # bytes; the smallest part that S3 accepts, except for the last one
MAX_FILE = 10_000 * PART  # bytes; S3 accepts 10,000 parts
MAX_PUT = 5 * 1024**3  # bytes; the largest file that S3 accepts in one request


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on a local disk."""

    path: Path


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix in an S3 bucket. `prefix` is empty or ends with a slash; without an endpoint the bucket is AWS's.

    `public_endpoint` is where clients reach the bucket, if they use another address than the service.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: Addressing = "auto"
    verify: bool | str = True
    public_endpoint: str | None = None


def parse(url: str) -> Folder | Bucket:
    """Return the folder or bucket that a URL names. Raises ValueError."""
    if url.startswith("s3://"):
        return _bucket(url)
    if url.startswith("file://"):
        return Folder(urls.file_path(url, "file://"))
    raise ValueError("must be file:///path or s3://bucket/prefix")


def _bucket(url: str) -> Bucket:
    parts = urls.split(url)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they come from AWS_ACCESS_KEY_ID and the rest of the AWS chain")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"names no valid bucket; its form is {GRAMMAR}")
    prefix = parts.path.removeprefix("/").removesuffix("/")
    if prefix and (len(prefix) > MAX_PREFIX or not _PREFIX.fullmatch(prefix)):
        raise ValueError("has an unsafe prefix: letters, digits and !_.'()*- between single slashes, no . or ..")
    if parts.fragment:
        raise ValueError(f"has a fragment; its form is {GRAMMAR}")
    options = urls.options(parts.query, {"endpoint", "public_endpoint", "region", "addressing", "verify"}, GRAMMAR)
    endpoint = urls.endpoint(options.get("endpoint"))
    return Bucket(
        name=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=endpoint,
        region=urls.region(options.get("region")),
        addressing=_addressing(options.get("addressing", "path" if endpoint else "auto")),
        verify=_verify(options.get("verify", "true")),
        public_endpoint=urls.endpoint(options.get("public_endpoint")),
    )


def _addressing(addressing: str) -> Addressing:
    if addressing not in get_args(Addressing):
        raise ValueError("has an addressing other than path, virtual or auto")
    return cast("Addressing", addressing)


def _verify(verify: str) -> bool | str:
    if verify in {"true", "false"}:
        return verify == "true"
    try:
        wrong = not verify.startswith("/") or not ssl.create_default_context(cafile=verify)
    except OSError:
        wrong = True
    if wrong:
        raise ValueError("has a verify that is not true, false or the absolute path of a file with CA certificates")
    return verify
