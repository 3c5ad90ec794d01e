"""Adds indexes for queries that were slow at a million rows: documents by their hash, and dead jobs.

Drops the index over all states of jobs: SQLite used it to look up due jobs, instead of the small partial indexes over
queued and running ones.
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
    # These come last: on PostgreSQL, dropping an index blocks readers of the table until the end of the transaction.
    op.drop_index(op.f("ix_documents_owner_id_sha256"), "documents")
    op.drop_index(op.f("ix_jobs_state"), "jobs")
