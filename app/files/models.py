"""The table of files, and a file as the code sees it. A file knows no document: a document points to its file."""

import re
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, String, Table, Uuid, text

from app.database import UTCDateTime, metadata
from app.storage.base import FOLDER
from app.web.fields import NamedValues

_OWN = re.compile(f"{FOLDER}/[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}")
_DISCARDED = text("discarded_at IS NOT NULL")


class ContentType(NamedValues):
    """The type of a file, as its structure shows it."""

    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Where the bytes are. Stored, so that they can stay there when new files get other keys.
    Column("key", String(255), nullable=False, unique=True),
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    # NULL until the bytes are here and verified; size and content type are then what was announced.
    Column("sha256", String(64)),
    Column("created_at", UTCDateTime, nullable=False),
    # When its document was deleted. The row is kept for a while, so that a sweep knows that the bytes may be removed.
    # In the future: it is reserved until then for what an attempt makes.
    Column("discarded_at", UTCDateTime),
    Index("ix_files_discarded", "discarded_at", sqlite_where=_DISCARDED, postgresql_where=_DISCARDED),
)


def key_of(file_id: UUID) -> str:
    """The key of a new file. It is made of the id alone, never of anything that a client sent."""
    return f"{FOLDER}/{file_id}"


def is_own(key: str) -> bool:
    """Whether this service has made the key. What others put beside its files is left alone."""
    return _OWN.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class File:
    """A stored file: its key in the storage, its size in bytes, its SHA-256 in hex (None: not verified yet)."""

    id: UUID
    key: str
    content_type: str
    size: int
    sha256: str | None

    @classmethod
    def of(cls, row: Any) -> Self:
        """The file in a mapping of column names to values."""
        return cls(*(row[name] for name in cls.__slots__))
