"""What operators need: pauses, the processes that are there, and lists of what all accounts have."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0018"
down_revision = "0017"

_INDEXES = {
    "ix_documents_created_at_id": ("documents", ["created_at", "id"], None),
    "ix_jobs_created_at_id": ("jobs", ["created_at", "id"], None),
    "ix_jobs_all_dead": ("jobs", ["created_at", "id"], "dead IS {true}"),
    "ix_jobs_unsuccessful": ("jobs", ["state", "created_at", "id"], "state IN ('FAILED', 'CANCELLED')"),
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create_tables()
        for name, (table, columns, where) in _INDEXES.items():
            condition = sa.text(where.format(true="1")) if where else None
            op.create_index(name, table, columns, unique=False, sqlite_where=condition)
        return
    with op.get_context().autocommit_block():
        _create_tables()
        for name, (table, columns, where) in _INDEXES.items():
            online.build_index(name, table, columns, where and where.format(true="true"))


def _create_tables() -> None:
    op.create_table(
        "pauses",
        sa.Column("queues", sa.String(length=120), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("queues", name=op.f("pk_pauses")),
        if_not_exists=True,
    )
    op.create_table(
        "processes",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("version", sa.String(length=20), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("alarms", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_processes")),
        if_not_exists=True,
    )
