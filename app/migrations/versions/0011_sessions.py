"""What the list of sessions shows, and the seed from which a refresh token's only child is made."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0011"
down_revision = "0010"

_OLD_INDEX, _INDEX = "ix_token_families_user_id", "ix_token_families_user_id_id"
_COLUMNS: dict[str, list[sa.Column[object]]] = {
    "users": [sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True)],
    "token_families": [
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("user_agent", sa.String(length=200), nullable=True),
    ],
    "refresh_tokens": [sa.Column("child_seed", sa.LargeBinary(length=32), nullable=True)],
}


def upgrade() -> None:
    dialect = op.get_context().dialect
    if dialect.name == "sqlite":
        for table, columns in _COLUMNS.items():
            for column in columns:
                op.add_column(table, column)
        op.create_index(_INDEX, "token_families", ["user_id", "id"], unique=False)
        op.drop_index(_OLD_INDEX, "token_families")
        return
    with op.get_context().autocommit_block():
        for table, columns in _COLUMNS.items():
            added = (f"ADD COLUMN IF NOT EXISTS {each.name} {each.type.compile(dialect)}" for each in columns)
            online.change(f"ALTER TABLE {table} {', '.join(added)}")
        online.build_index(_INDEX, "token_families", ["user_id", "id"], None)
        online.run(f"DROP INDEX CONCURRENTLY IF EXISTS {_OLD_INDEX}")
