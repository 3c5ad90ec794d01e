"""Parsing that the URLs in settings share. Errors are ValueErrors that do not repeat the value."""

import re
from collections.abc import Mapping, Set as AbstractSet
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

# The AWS SDK accepts host names without underscores, and regions that could be a label of a host name.
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?=.{{1,255}}$){_LABEL}(\.{_LABEL})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_REGION = re.compile(r"(?!\d+$)(?!-)[a-z0-9-]{1,63}(?<!-)")


def split(url: str) -> SplitResult:
    """Return the parts of a URL. Refuses control characters, which urlsplit would drop silently."""
    if not url.isascii() or not url.isprintable():
        raise ValueError("must be printable ASCII")
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("has no valid host") from None


def options(query: str, known: AbstractSet[str], grammar: str) -> Mapping[str, str]:
    """Return the options in a query: known ones only, each at most once. `grammar` is the URL's form, for the error."""
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError("says something twice")
    if unknown := given.keys() - known:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}; its form is {grammar}")
    return given


def endpoint(url: str | None) -> str | None:
    """Return the address of an S3 or SQS service that is not AWS's own, as scheme and host."""
    if url is None:
        return None
    parts = split(url)
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    known = has_host(parts) and _HOST.fullmatch(parts.hostname or "")
    if not known or extras or parts.scheme not in {"http", "https"}:
        raise ValueError("needs an endpoint of the form https://host or http://host:port, without _ or anything else")
    return f"{parts.scheme}://{parts.netloc}"


def has_host(parts: SplitResult) -> bool:
    """Return whether the URL has a host and, if it has a port, a valid one."""
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number or is out of range
        return False


def region(region: str | None) -> str | None:
    """Return the name of an AWS region, or None for none."""
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("has no valid region")
    return region


def file_path(url: str, prefix: str) -> Path:
    """Return the path in a URL that is `prefix` followed by the path of a file or folder."""
    path = Path(unquote(url.removeprefix(prefix)))
    if not url.startswith(prefix) or "?" in url or path.name in {"", ":memory:"}:
        raise ValueError(f"must be {prefix} and a path")
    return path
