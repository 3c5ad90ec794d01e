"""INBOX_URL: where files are dropped that become documents."""

import json
from pathlib import Path
from typing import Any

from app.settings import storage
from app.settings.storage import Bucket

_OWN = ("documents/", "audit/")  # what the service itself keeps under the prefix of its storage


def parse(url: str) -> Path | Bucket:
    """Return the folder or the bucket that is named, a folder also by its mere path. Raises ValueError."""
    return storage.parse(url) if "://" in url else Path(url)


def parse_params(text: str) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError."""
    try:
        params = json.loads(text)
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic expects it
    return params


def refuse_own(inbox: Path | Bucket, own: list[Path | Bucket]) -> None:
    """Raise ValueError if the inbox is, holds, or lies in a place where the service keeps its own: it would take in
    what it has stored."""
    for place in own:
        if isinstance(inbox, Path) and isinstance(place, Path):
            one, other = inbox.resolve(), place.resolve()
            overlap = one.is_relative_to(other) or other.is_relative_to(one)
        elif isinstance(inbox, Bucket) and isinstance(place, Bucket):
            same = (inbox.name, inbox.endpoint) == (place.name, place.endpoint)
            within = tuple(place.prefix + folder for folder in _OWN)
            overlap = same and (place.prefix.startswith(inbox.prefix) or inbox.prefix.startswith(within))
        else:
            overlap = False
        if overlap:
            raise ValueError("INBOX_URL must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL")
