"""The tables of results, and of the files that belong to them."""

from typing import Any, NamedTuple, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)

from app.database import UTCDateTime, metadata
from app.files.models import File

# The last good result of each processor. It says by itself what made it, and of which bytes.
# When the job of a row changes, or the row goes, triggers (revision 0013) discard the file that the row pointed to.
results = Table(
    "document_results",
    metadata,
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("processor", String(50), primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("processor_version", String(50), nullable=False),
    Column("params", JSON, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    # The number of the document's file that it was made of.
    Column("file_number", Integer, nullable=False, server_default="1"),
    # {} if the answer is in a file.
    Column("data", JSON, nullable=False),
    # The file of a large answer, compressed, and the bytes of JSON in it. No foreign key, as for `documents.file_id`.
    Column("file_id", Uuid),
    Column("size", BigInteger),
    Column("created_at", UTCDateTime, nullable=False),
    Index(None, "created_at"),
)

# Files that were made with a result, in the order of their numbers. Triggers (revision 0021) delete these rows when the
# job of their result changes, discard the file of a row that goes, and count its size.
result_files = Table(
    "result_files",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("processor", String(50), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("file_id", Uuid, nullable=False),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["document_id", "processor"],
        ["document_results.document_id", "document_results.processor"],
        ondelete="CASCADE",
    ),
    UniqueConstraint("document_id", "processor", "name"),
)

# The results of files that documents had before, and what was made with them. Triggers (revision 0023) do for these
# rows what those named above do for the current ones.
previous_results = Table(
    "previous_results",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("file_number", Integer, primary_key=True),
    Column("processor", String(50), primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("processor_version", String(50), nullable=False),
    Column("params", JSON, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Column("file_id", Uuid),
    Column("size", BigInteger),
    Column("created_at", UTCDateTime, nullable=False),
    ForeignKeyConstraint(
        ["document_id", "file_number"],
        ["previous_files.document_id", "previous_files.number"],
        ondelete="CASCADE",
    ),
    Index(None, "created_at"),
)

previous_result_files = Table(
    "previous_result_files",
    metadata,
    Column("document_id", Uuid, primary_key=True),
    Column("file_number", Integer, primary_key=True),
    Column("processor", String(50), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("file_id", Uuid, nullable=False),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["document_id", "file_number", "processor"],
        ["previous_results.document_id", "previous_results.file_number", "previous_results.processor"],
        ondelete="CASCADE",
    ),
)


class ResultFile(NamedTuple):
    """A file of a result, by its name."""

    name: str
    file: File

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """The one in a row."""
        return cls(row["name"], File.of(row))
