"""Removes what only processes of revision 0005 used, and the triggers by which they lived beside those of 0007."""

from alembic import op

from app.migrations import online

revision = "0008"
down_revision = "0007"

_TRIGGERS = {"add_file_of_0005": "documents", "verify_file_of_0005": "documents", "discard_file_of_0005": "events"}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for trigger in _TRIGGERS:
            op.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        op.drop_column("idempotency_keys", "holder")
        return
    with op.get_context().autocommit_block():
        online.change(
            *(f"DROP TRIGGER IF EXISTS {trigger} ON {table}" for trigger, table in _TRIGGERS.items()),
            "ALTER TABLE idempotency_keys DROP COLUMN IF EXISTS holder",
        )
        online.run(*(f"DROP FUNCTION IF EXISTS {trigger}" for trigger in _TRIGGERS))
