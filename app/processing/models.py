"""The tables of results, and of the files that belong to them."""

from typing import Any, NamedTuple, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
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
    # {} if the answer is in a file.
    Column("data", JSON, nullable=False),
    # The file of a large answer, compressed, and the bytes of JSON in it. No foreign key, as for `documents.file_id`.
    Column("file_id", Uuid),
    Column("size", BigInteger),
    Column("created_at", UTCDateTime, nullable=False),
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


class ResultFile(NamedTuple):
    """A file of a result, by its name."""

    name: str
    file: File

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """The one in a row."""
        return cls(row["name"], File.of(row))
