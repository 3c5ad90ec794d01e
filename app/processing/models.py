"""The table of results."""

from sqlalchemy import JSON, Column, ForeignKey, String, Table, Uuid

from app.database import UTCDateTime, metadata

# The last good result of each processor. It says by itself what made it, and of which bytes.
results = Table(
    "document_results",
    metadata,
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("processor", String(50), primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("processor_version", String(50), nullable=False),
    Column("params", JSON, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
)
