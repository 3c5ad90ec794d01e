"""Adds indexes for queries that were slow at a million rows: documents by their hash, and dead jobs.

Drops the index over all states of jobs: SQLite used it to look up due jobs, instead of the small partial indexes over
queued and running ones.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0003"
down_revision = "0002"

_INDEXES = {
    "ix_documents_owner_id_sha256_created_at_id": ("documents", ["owner_id", "sha256", "created_at", "id"], None),
    "ix_jobs_dead": ("jobs", ["owner_id", "created_at", "id"], "dead IS {true}"),
    "ix_jobs_ended": ("jobs", ["state"], "state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"),
}
_REPLACED = {"ix_documents_owner_id_sha256": "documents", "ix_jobs_state": "jobs"}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for name, (table, columns, where) in _INDEXES.items():
            condition = sa.text(where.format(true="1")) if where else None
            op.create_index(name, table, columns, unique=False, sqlite_where=condition)
        for name, table in _REPLACED.items():
            op.drop_index(name, table)
        return
    with op.get_context().autocommit_block():
        for name, (table, columns, where) in _INDEXES.items():
            online.build_index(name, table, columns, where and where.format(true="true"))
        for name in _REPLACED:
            online.run(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
