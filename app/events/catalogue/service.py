"""What concerns the service as a whole: its settings, its secrets and its storage."""

from typing import Literal

from pydantic.json_schema import SkipJsonSchema

from app.events.catalogue.base import Event


class SettingsStarted(Event):
    """A process began to serve or to work, at this version, with these settings: their SHA-256, secrets left out."""

    name = "settings.started"
    version: str
    sha256: str


class SecretsRotated(Event):
    """What is encrypted under older keys was encrypted with the newest: so many secrets. Of others, no key is there."""

    name = "secrets.rotated"
    changed: int
    unreadable: int


class StorageClaimed(Event):
    """This database claimed the files of its storage."""

    name = "storage.claimed"


class StorageDisputed(Event):
    """Another database claims the files of this one's storage."""

    name = "storage.disputed"
    _level = "warning"


class StorageMismatch(Event):
    """A stored file is missing, or not as it was stored: it has another size, or another content.

    The scrubber found it. `document_id` is missing if the file is none of a document's.
    """

    name = "storage.mismatch"
    _level = "warning"
    kind: Literal["missing", "size", "content"]
    file: str
    document_id: str | SkipJsonSchema[None] = None
