"""The tables of documents, of the files that they had before, of their tags, and of the index of their texts."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    false,
    text,
)

from app.database import UTCDateTime, binary_text, metadata
from app.documents.lifecycle import Status

_STATUSES = ", ".join(f"'{status}'" for status in Status)
_INITIATED = text("status = 'INITIATED'")
_WITH_PARENT = text("parent_id IS NOT NULL")
_TRASHED = text("deleted_at IS NOT NULL")
_HELD = text("hold IS NOT NULL")
_EXPIRING = text("expires_at IS NOT NULL AND deleted_at IS NULL")

documents = Table(
    "documents",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("users.id"), nullable=False),
    Column("filename", binary_text(255), nullable=False),
    # No foreign key: to delete a file would then read all documents, or every upload would pay for an index.
    Column("file_id", Uuid),
    # What the file's row says, for the list to filter and sort by. `sha256` may be announced and not verified.
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("status", String(10), nullable=False),
    Column("version", Integer, nullable=False),
    Column("description", String(2000)),
    Column("folder", String(255)),
    Column("tags", JSON, nullable=False),
    # When the URL of a direct upload expires.
    Column("upload_expires_at", UTCDateTime),
    # What it was made of. No foreign key: it stays what it is when that is deleted.
    Column("parent_id", Uuid),
    Column("job_id", Uuid),
    Column("error", JSON(none_as_null=True)),
    Column("created_at", UTCDateTime, nullable=False),
    Column("updated_at", UTCDateTime, nullable=False),
    # Since when it is in the trash. NULL: it is not.
    Column("deleted_at", UTCDateTime),
    # When upkeep moves it to the trash.
    Column("expires_at", UTCDateTime),
    # Why it must not be removed. A trigger (revision 0023) refuses to delete the row while this is set.
    Column("hold", String(200)),
    # The file that the document has now; `filename`, `content_type`, `size` and `sha256` are of it, too.
    Column("file_number", Integer, nullable=False, server_default="1"),
    Column("file_label", String(100)),
    Column("file_keep", Boolean, nullable=False, server_default=false()),
    # NULL: it is the first one, stored with the document.
    Column("file_stored_at", UTCDateTime),
    Column("file_stored_by", String(100)),
    CheckConstraint(f"status IN ({_STATUSES})", name="status"),
    # One index for each sort order, and one for each filter that may match few documents.
    Index(None, "owner_id", "created_at", "id"),
    Index(None, "owner_id", "filename", "id"),
    Index(None, "owner_id", "size", "id"),
    Index(None, "owner_id", "status", "created_at", "id"),
    Index(None, "owner_id", "folder", "created_at", "id"),
    Index(None, "owner_id", "sha256", "created_at", "id"),
    Index(
        "ix_documents_parent",
        "owner_id",
        "parent_id",
        "created_at",
        "id",
        sqlite_where=_WITH_PARENT,
        postgresql_where=_WITH_PARENT,
    ),
    Index(None, "status"),
    # For operators, who see the documents of all.
    Index(None, "created_at", "id"),
    Index("ix_documents_trash", "owner_id", "deleted_at", "id", sqlite_where=_TRASHED, postgresql_where=_TRASHED),
    Index("ix_documents_trashed", "deleted_at", sqlite_where=_TRASHED, postgresql_where=_TRASHED),
    Index("ix_documents_held", "owner_id", "created_at", "id", sqlite_where=_HELD, postgresql_where=_HELD),
    Index("ix_documents_expiring", "expires_at", sqlite_where=_EXPIRING, postgresql_where=_EXPIRING),
    Index("ix_documents_initiated", "upload_expires_at", sqlite_where=_INITIATED, postgresql_where=_INITIATED),
)

# The files that documents had before. Triggers (revision 0023) count them as their owner's, and discard the file of a
# row that goes.
previous_files = Table(
    "previous_files",
    metadata,
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("owner_id", Uuid, nullable=False),
    Column("file_id", Uuid, nullable=False),
    Column("filename", binary_text(255), nullable=False),
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("label", String(100)),
    # Never removed for its age, or because there are many.
    Column("keep", Boolean, nullable=False),
    Column("stored_at", UTCDateTime, nullable=False),
    Column("stored_by", String(100)),
    Column("replaced_at", UTCDateTime, nullable=False),
    Index(None, "replaced_at"),
)

# Finds the documents with a tag. What clients see is `documents.tags`.
document_tags = Table(
    "document_tags",
    metadata,
    Column("tag", String(50), primary_key=True),
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "document_id"),
)

# What a search is looked for in, and the changes that are not in it yet (see `search`).
document_texts = Table(
    "document_texts",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("document_id", Uuid, nullable=False, unique=True),
    Column("owner_id", Uuid, nullable=False),
    Column("text", Text().with_variant(Text(collation="C"), "postgresql"), nullable=False),
    Index(None, "owner_id"),
    info={"derived": True},
)
unindexed_documents = Table(
    "unindexed_documents",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("document_id", Uuid, nullable=False),
    info={"derived": True},
)
