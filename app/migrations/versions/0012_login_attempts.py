"""Remembers failed logins."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create()
        return
    with op.get_context().autocommit_block():
        if not sa.inspect(op.get_bind()).has_table("login_attempts"):
            _create()
        online.build_index("ix_login_attempts_expires_at", "login_attempts", ["expires_at"], None)


def _create() -> None:
    op.create_table(
        "login_attempts",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_attempts")),
    )
    op.execute("CREATE INDEX IF NOT EXISTS ix_login_attempts_expires_at ON login_attempts (expires_at)")
