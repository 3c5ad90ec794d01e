"""Roles of accounts."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.add_column("users", sa.Column("role", sa.String(length=8), nullable=True))
        return
    with op.get_context().autocommit_block():
        online.change("ALTER TABLE users ADD COLUMN IF NOT EXISTS role VARCHAR(8)")
