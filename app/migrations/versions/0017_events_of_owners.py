"""Finds the events of one account's documents, in their order."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0017"
down_revision = "0016"

_NAME, _COLUMNS, _WHERE = "ix_events_user_id_seq", ["user_id", "seq"], "document_id IS NOT NULL"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.create_index(_NAME, "events", _COLUMNS, unique=False, sqlite_where=sa.text(_WHERE))
        return
    with op.get_context().autocommit_block():
        online.build_index(_NAME, "events", _COLUMNS, _WHERE)
