"""STORAGE_URL: where the files are."""

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from app.settings.urls import Endpoint, Region, Target, file_path, matching, split

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
# The characters that S3 calls safe; no segment is `.` or `..`, which proxies and tools would resolve.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_PREFIX = r"(?!.*(^|/)\.\.?(/|$))([\w!.'()*-]+/)*"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 5 * 1024**2  # bytes; the smallest part that S3 accepts, except for the last one
MAX_FILE = 10_000 * PART  # bytes; S3 accepts 10,000 parts
MAX_PUT = 5 * 1024**3  # bytes; the largest file that S3 accepts in one request


def _verify(value: str) -> bool | str:
    if value in {"true", "false"}:
        return value == "true"
    try:
        if value.startswith("/") and ssl.create_default_context(cafile=value):
            return value
    except OSError:
        pass
    raise ValueError("must be true, false or the absolute path of a file with CA certificates")


class Bucket(Target):
    """A prefix in an S3 bucket. `prefix` is empty or ends with a slash; without an endpoint the bucket is AWS's.

    Credentials come from the AWS chain. `public_endpoint` is where clients reach the bucket, if they use another
    address than the service.
    """

    name: Annotated[str, matching(_BUCKET, "a bucket: 3 to 63 letters a-z, digits, - and ., without credentials")]
    prefix: Annotated[str, matching(_PREFIX, "letters, digits and !_.'()*- between single slashes, no . or ..")] = (
        Field("", max_length=513)
    )
    endpoint: Endpoint | None = None
    region: Region | None = None
    addressing: Literal["path", "virtual", "auto"] | None = None  # `path` with an endpoint, else `auto`
    verify: Annotated[bool | str, PlainValidator(_verify)] = True
    public_endpoint: Endpoint | None = None


def contains(outer: Path | Bucket, inner: Path | Bucket) -> bool:
    """Whether a place is another, or has it within. One endpoint can be spelt in many ways, so buckets of the same name
    count as the same."""
    if isinstance(outer, Path) and isinstance(inner, Path):
        return inner.resolve().is_relative_to(outer.resolve())
    if isinstance(outer, Bucket) and isinstance(inner, Bucket):
        return outer.name == inner.name and inner.prefix.startswith(outer.prefix)
    return False


def parse(url: str) -> Path | Bucket:
    """Return the folder or the bucket that a URL names. Raises ValueError."""
    if url.startswith("file://"):
        return file_path(url, "file://")
    base, query = split(url)
    scheme, _, target = base.partition("://")
    if scheme != "s3":
        raise ValueError("must be file:///path or s3://bucket/prefix")
    name, _, prefix = target.partition("/")
    return Bucket.of(query, name=name, prefix=prefix and prefix.removesuffix("/") + "/")
