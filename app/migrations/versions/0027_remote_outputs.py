"""Files that workers elsewhere have sent, until their jobs end."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create()
        return
    with op.get_context().autocommit_block():
        _create()


def _create() -> None:
    """A table that nothing is in yet."""
    op.create_table(
        "remote_outputs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("is_document", sa.Boolean(), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "fence", "number", name=op.f("pk_remote_outputs")),
        if_not_exists=True,
    )
    op.create_index(op.f("ix_remote_outputs_expires_at"), "remote_outputs", ["expires_at"], if_not_exists=True)
