"""What the URLs in settings have in common. Whatever is wrong is a ValueError that does not repeat the value."""

import re
from collections.abc import Mapping, Set as AbstractSet
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

# What the AWS SDK makes a client of: host names without an underscore, regions that could be a part of one.
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?=.{{1,255}}$){_LABEL}(\.{_LABEL})*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_REGION = re.compile(r"(?!\d+$)(?!-)[a-z0-9-]{1,63}(?<!-)")


def split(url: str) -> SplitResult:
    """The parts of a URL. urlsplit would drop control characters silently."""
    if not url.isascii() or not url.isprintable():
        raise ValueError("must be printable ASCII")
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("has no valid host") from None


def options(query: str, known: AbstractSet[str], grammar: str) -> Mapping[str, str]:
    """What a query says, each of the known options once at the most."""
    pairs = parse_qsl(query, keep_blank_values=True)
    said = dict(pairs)
    if len(said) < len(pairs):
        raise ValueError("says something twice")
    if unknown := said.keys() - known:
        raise ValueError(f"has an unknown option: {min(unknown)!r:.40}; its form is {grammar}")
    return said


def endpoint(url: str | None) -> str | None:
    """The address of a service that is not AWS's own."""
    if url is None:
        return None
    parts = split(url)
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    known = has_host(parts) and _HOST.fullmatch(parts.hostname or "")
    if not known or extras or parts.scheme not in {"http", "https"}:
        raise ValueError("needs an endpoint of the form https://host or http://host:port, without _ or anything else")
    return f"{parts.scheme}://{parts.netloc}"


def has_host(parts: SplitResult) -> bool:
    """Whether there is a host and, if there is a port, a possible one."""
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        return False


def region(region: str | None) -> str | None:
    """The name of an AWS region."""
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("has no valid region")
    return region


def file_path(url: str, prefix: str) -> Path:
    """The path of a URL, if that is a file or folder of its own."""
    path = Path(unquote(url.removeprefix(prefix)))
    if not url.startswith(prefix) or "?" in url or path.name in {"", ":memory:"}:
        raise ValueError(f"must be {prefix} and a path")
    return path
