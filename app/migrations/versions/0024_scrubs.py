"""How far the stored files have been read back."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create()
        return
    with op.get_context().autocommit_block():
        _create()


def _create() -> None:
    """A table that nothing is in yet."""
    op.create_table(
        "scrubs",
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("mismatches", sa.Integer(), nullable=False),
        sa.Column("mismatches_before", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_scrubs")),
        if_not_exists=True,
    )
