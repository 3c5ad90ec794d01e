"""What `storage`, `database` and `broker` share, which parse the URLs in settings.

Errors are ValueErrors that do not repeat a value, which may hold a password.
"""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, unquote

from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict


class Target(BaseModel):
    """What a URL names, and the options in its query."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def of(cls, query: str, **named: str) -> Self:
        """Return the target. Raises ValueError for an option that is unknown, repeated or wrong."""
        options = parse_qsl(query, keep_blank_values=True)
        known = sorted(cls.model_fields.keys() - named.keys())
        for name, _ in options:
            if name not in known:
                raise ValueError(f"has an unknown option: {name!r:.40}; it may have: {', '.join(known)}")
        if len(dict(options)) < len(options):
            raise ValueError("has an option twice")
        return cls.model_validate(named | dict(options))


def split(url: str) -> tuple[str, str]:
    """Return a URL without its query, and the query. Refuses control characters, which parsers drop silently."""
    if not url.isascii() or not url.isprintable():
        raise ValueError("must be printable ASCII")
    base, _, query = url.partition("?")
    return base, query


def file_path(url: str, prefix: str) -> Path:
    """Return the path in a URL that is `prefix` followed by the path of a file or folder."""
    path = Path(unquote(url.removeprefix(prefix)))
    if not url.startswith(prefix) or "?" in url or path.name in {"", ":memory:"}:
        raise ValueError(f"must be {prefix} and a path")
    return path


def matching(pattern: str, form: str) -> AfterValidator:
    """Return a validator of text that matches the whole pattern. `form` says in words what it must be."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {form}")
        if "://" in text:
            AnyUrl(text)  # raises ValueError for a port that is too large, and for what is no IPv6 address
        return text

    return AfterValidator(check)


# The AWS SDK accepts host names without underscores, and regions that could be a label of a host name.
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_IPV6 = r"\[[0-9a-f:.]+\]"
_PORT = r"(:([1-9]\d*)?)?"

SERVER = rf"([^/#]*@)?([^/#@:\[\]]+|{_IPV6}){_PORT}"  # user:password@host:port
_ORIGIN = rf"https?://({_LABEL}(\.{_LABEL})*\.?|{_IPV6}){_PORT}/?"

Region = Annotated[str, matching(rf"(?!\d+$)(?=[a-z0-9-]+$){_LABEL}", "the name of a region")]
Endpoint = Annotated[
    str,
    matching(_ORIGIN, "https://host or http://host:port, without _ or anything else"),
    AfterValidator(lambda url: url.removesuffix("/")),
]
