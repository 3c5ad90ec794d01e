"""What makes events an audit trail: where they came from, what signs them, and seals over them."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0019"
down_revision = "0018"

_INDEX, _ACCOUNTS = "ix_events_account", "document_id IS NULL"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for column in (
            sa.Column("ip", sa.String(length=43), nullable=True),
            sa.Column("credential_id", sa.Uuid(), nullable=True),
            sa.Column("mac", sa.LargeBinary(length=32), nullable=True),
        ):
            op.add_column("events", column)
        op.execute(f"CREATE INDEX {_INDEX} ON events (user_id, seq) WHERE {_ACCOUNTS}")
        _create_seals()
        return
    with op.get_context().autocommit_block():
        columns = ("ip VARCHAR(43)", "credential_id UUID", "mac BYTEA")
        online.change(f"ALTER TABLE events {', '.join(f'ADD COLUMN IF NOT EXISTS {each}' for each in columns)}")
        _create_seals()
        online.build_index(_INDEX, "events", ["user_id", "seq"], _ACCOUNTS)


def _create_seals() -> None:
    op.create_table(
        "audit_seals",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("to_seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("unsigned_to", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("previous", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("forgotten", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_seals")),
        if_not_exists=True,
    )
    op.execute("CREATE INDEX IF NOT EXISTS ix_audit_seals_kept ON audit_seals (id) WHERE forgotten IS NULL")
