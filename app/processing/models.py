"""The table of results."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, String, Table, Uuid

from app.database import UTCDateTime, metadata

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
