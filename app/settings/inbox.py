"""INBOX_URL: where files are dropped that become documents."""

import json
from pathlib import Path
from typing import Any

from app.settings import storage
from app.settings.storage import Bucket, contains

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
        if contains(inbox, place) or any(contains(kept, inbox) for kept in _kept(place)):
            raise ValueError("INBOX_URL must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL")


def _kept(place: Path | Bucket) -> list[Path | Bucket]:
    """What the service keeps in a place: beside it, a bucket may have an inbox."""
    if isinstance(place, Path):
        return [place]
    return [place.model_copy(update={"prefix": place.prefix + folder}) for folder in _OWN]
