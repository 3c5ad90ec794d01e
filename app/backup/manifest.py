"""What a backup says of itself."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from app.backup import BackupError
from app.errors import NotFound
from app.storage.base import Storage, Stored

FORMAT = 1
MANIFEST, DATABASE, LIST = "manifest.json", "database.dump", "files.ndjson"
FOLDER = "backups"
_WHOLE = 2**62  # bytes; more than any object has


_ID = re.compile(r"\d{8}T\d{12}Z", re.ASCII)


def is_id(name: str) -> bool:
    """Whether `new_id` has made this."""
    return _ID.fullmatch(name) is not None


def new_id() -> str:
    """The id of a backup that begins now. Those of later ones come after it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"


class Content(BaseModel):
    """The size in bytes and the SHA-256 (hex) of one object of a backup."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str

    @classmethod
    def of(cls, stored: Stored) -> Self:
        return cls(size=stored.size, sha256=stored.sha256)


class Manifest(BaseModel):
    """What is in a complete backup.

    `event`: number and id of the latest event in the database, which tells it from every other. `size`: bytes of all
    files. `missing`: files that are not in the backup, because the storage had not got them, or not as they were
    uploaded. `listing`: the list of the files. `sealed`: the SHA-256 of all the rest.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    id: str
    version: str
    kind: str
    revision: str
    event: str | None
    encrypted: bool
    documents: int
    files: int
    size: int
    missing: int
    began_at: datetime
    completed_at: datetime
    database: Content
    listing: Content
    sealed: str = ""

    def seal(self) -> "Manifest":
        """The same manifest with what `read` verifies."""
        return self.model_copy(update={"sealed": self.digest()})

    def digest(self) -> str:
        """The SHA-256 (hex) of all but `sealed`."""
        return hashlib.sha256(self.model_dump_json(exclude={"sealed"}).encode()).hexdigest()


def key(backup_id: str, name: str) -> str:
    """The key of an object of a backup: its MANIFEST, DATABASE or LIST."""
    return f"{FOLDER}/{backup_id}/{name}"


async def read(storage: Storage, backup_id: str) -> Manifest:
    """The manifest of a backup. Raises BackupError if there is none, or if it is damaged or of a newer version."""
    try:
        text = b"".join([chunk async for chunk in storage.read(key(backup_id, MANIFEST), 0, _WHOLE)])
        found = Manifest.model_validate_json(text)
    except NotFound:
        raise BackupError(f"there is no complete backup {backup_id}") from None
    except ValidationError:
        raise BackupError(f"{key(backup_id, MANIFEST)} is damaged, or of a newer version") from None
    if found.sealed != found.digest() or found.id != backup_id:
        raise BackupError(f"{key(backup_id, MANIFEST)} is damaged")
    if found.format > FORMAT:
        raise BackupError(f"the backup {backup_id} was made by a newer version: {found.version}")
    return found
