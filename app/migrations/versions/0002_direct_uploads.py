"""Adds documents that are announced before their bytes arrive."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0002"
down_revision = "0001"

_INDEX, _COLUMNS, _INITIATED = "ix_documents_initiated", ["upload_expires_at"], "status = 'INITIATED'"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _let_sha256_be_null()
        op.add_column("documents", sa.Column("upload_expires_at", sa.DateTime(timezone=True), nullable=True))
        op.create_index(_INDEX, "documents", _COLUMNS, unique=False, sqlite_where=sa.text(_INITIATED))
        return
    with op.get_context().autocommit_block():
        online.change(
            """
            ALTER TABLE documents
                ALTER COLUMN sha256 DROP NOT NULL,
                ADD COLUMN IF NOT EXISTS upload_expires_at TIMESTAMP WITH TIME ZONE
            """
        )
        online.build_index(_INDEX, "documents", _COLUMNS, _INITIATED)


def _let_sha256_be_null() -> None:
    """Copy to a nullable column: SQLite cannot alter one; to recreate the table would cascade to jobs and results."""
    op.drop_index(op.f("ix_documents_owner_id_sha256"), "documents")
    op.alter_column("documents", "sha256", new_column_name="old_sha256")
    op.add_column("documents", sa.Column("sha256", sa.String(length=64), nullable=True))
    op.execute("UPDATE documents SET sha256 = old_sha256")
    op.drop_column("documents", "old_sha256")
    op.create_index(op.f("ix_documents_owner_id_sha256"), "documents", ["owner_id", "sha256"], unique=False)
