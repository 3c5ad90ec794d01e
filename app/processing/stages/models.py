"""The table of what stages have made."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, String, Table, Uuid

from app.database import UTCDateTime, metadata

# A cache: each row can be made again. Triggers (revision 0022) discard the file of a row that goes or gets another, and
# delete the rows of a content with the last document of their owner that has it.
stage_results = Table(
    "stage_results",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("owner_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    # Of the document that it was made of.
    Column("input_sha256", String(64), nullable=False),
    # {} if it is in a file.
    Column("data", JSON, nullable=False),
    # The file of what is large: its JSON, compressed. No foreign key, as for `documents.file_id`.
    Column("file_id", Uuid),
    # Bytes of the JSON in the row, or of the file.
    Column("size", BigInteger, nullable=False),
    # Bytes of the JSON, compressed or not.
    Column("length", BigInteger, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("last_used_at", UTCDateTime, nullable=False),
    Index(None, "owner_id", "input_sha256"),
    # With the size, so that a total reads no data.
    Index(None, "last_used_at", "size"),
)
