"""Gives each job a turn, by which due jobs are claimed fairly among owners.

Jobs that are queued have none, nor have those of processes that know no turns: it is assigned when they are polled.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0009"
down_revision = "0008"

_INDEXES = (
    ("ix_jobs_turn", ["queue", "turn", "run_at"], "finished_at IS NULL AND locked_until IS NULL"),
    ("ix_jobs_live", ["owner_id", "queue", "turn"], "finished_at IS NULL"),
)


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.add_column("jobs", sa.Column("turn", sa.Float(), nullable=True))
        for name, columns, where in _INDEXES:
            op.create_index(name, "jobs", columns, unique=False, sqlite_where=sa.text(where))
        return
    with op.get_context().autocommit_block():
        online.change("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS turn DOUBLE PRECISION")
        for name, columns, where in _INDEXES:
            online.build_index(name, "jobs", columns, where)
