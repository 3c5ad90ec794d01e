"""The settings of the inbox: where files are dropped that become documents, and what is done with these."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field
from pydantic_settings import NoDecode

from app.settings import storage
from app.settings.fields import parsed
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


class Inbox(BaseModel):
    """Everything about the inbox but what all uploads have in common."""

    inbox_url: Annotated[Path | Bucket | None, NoDecode, parsed(parse)] = Field(
        None,
        description="A folder, or `s3://bucket/prefix?endpoint=…`, whose files become documents (below). Empty: none.",
    )
    inbox_owner: str = Field("", description="Email address of the account whose documents these are.")
    inbox_processor: str = Field("", description="The processor that they are processed with; empty: only uploaded.")
    inbox_params: Annotated[dict[str, Any] | None, NoDecode, parsed(parse_params)] = Field(
        None, description="Params of that processor, as JSON; those left out take its defaults."
    )
    inbox_settle_seconds: float = Field(
        5,
        ge=0.1,
        le=3600,
        description="A file in a folder is taken when it has not changed for this long; 0.1 to 3600.",
    )


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
