"""Anchors: seals as they have left the machine, so that nobody who owns the database can undo what they say."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from app.errors import ConfigurationError
from app.events.seals import Anchoring, Seal
from app.storage.base import Notebook, Storage

FOLDER = "audit"
BUCKET = "bucket"

Anchors = AsyncIterator[Mapping[str, Any]]


def anchoring(storage: Storage) -> Anchoring:
    """What keeps a seal in the bucket; without one, its log line has to do.

    What cannot be written now is not lost: the next seal says what this one was.
    """

    async def anchor(seal: Seal) -> None:
        if isinstance(storage, Notebook):
            name = f"{FOLDER}/{seal.sealed_at:%Y-%m-%d}/{seal.id:012}.json"
            await storage.write_note(name, json.dumps(seal.anchor))

    return anchor


async def of_bucket(storage: Storage, since: datetime | None) -> Anchors:
    """The anchors in the bucket that STORAGE_URL names, of seals made since. Raises ConfigurationError."""
    if not isinstance(storage, Notebook):
        raise ConfigurationError("STORAGE_URL names no bucket: there are no anchors but in the log")
    async for text in storage.notes(FOLDER, f"{since:%Y-%m-%d}" if since else ""):
        yield _parsed(text, "an object in the bucket")


async def of_file(file: Path) -> Anchors:
    """The anchors in a file: log lines as JSON, among others, or objects of the bucket, one a line."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"mac"' in line and '"to_seq"' in line:
                    yield _parsed(line, str(file))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    try:
        anchor = json.loads(text)
        return {"id": int(anchor["id"]), "to_seq": int(anchor["to_seq"]), "mac": str(anchor["mac"])}
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{where} is no anchor: {text[:60]!r}") from None
