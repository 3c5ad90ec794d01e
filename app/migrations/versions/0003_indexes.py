"""Indexes for what was slow at a million rows: documents by their hash, and dead jobs.

And one less: SQLite looked up due jobs in the index of all states, not in the small ones of those queued or running.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


_ENDED = sa.text("state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")


def upgrade() -> None:
    op.create_index(
        op.f("ix_documents_owner_id_sha256_created_at_id"),
        "documents",
        ["owner_id", "sha256", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_jobs_dead",
        "jobs",
        ["owner_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("dead IS 1"),
        postgresql_where=sa.text("dead IS true"),
    )
    op.create_index("ix_jobs_ended", "jobs", ["state"], unique=False, sqlite_where=_ENDED, postgresql_where=_ENDED)
    # Last: on PostgreSQL nobody can read a table from here to the end.
    op.drop_index(op.f("ix_documents_owner_id_sha256"), "documents")
    op.drop_index(op.f("ix_jobs_state"), "jobs")
