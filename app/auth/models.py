"""Tables of accounts and refresh tokens."""

from sqlalchemy import Boolean, Column, ForeignKey, Index, LargeBinary, String, Table, Uuid

from app.database import UTCDateTime, metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
)

# A login, and all refresh tokens that descend from it.
token_families = Table(
    "token_families",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
    Column("revoked_at", UTCDateTime),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("family_id", Uuid, ForeignKey("token_families.id", ondelete="CASCADE"), nullable=False, index=True),
    # No foreign key: deleting a long chain by cascade would exceed SQLite's limit on trigger depth.
    Column("parent_id", Uuid),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("expires_at", UTCDateTime, nullable=False),
    Column("rotated_at", UTCDateTime),
    Index(None, "parent_id"),
)
