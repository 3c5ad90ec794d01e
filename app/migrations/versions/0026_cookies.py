"""Sessions of browsers, which have a cookie instead of tokens."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0026"
down_revision = "0025"

_NAME, _TABLE, _COLUMNS = "uq_token_families_cookie_hash", "token_families", ["cookie_hash"]
_WHERE = "cookie_hash IS NOT NULL"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.add_column(_TABLE, sa.Column("cookie_hash", sa.LargeBinary(32), nullable=True))
        op.create_index(_NAME, _TABLE, _COLUMNS, unique=True, sqlite_where=sa.text(_WHERE))
        return
    with op.get_context().autocommit_block():
        online.change("ALTER TABLE token_families ADD COLUMN IF NOT EXISTS cookie_hash BYTEA")
        online.build_index(_NAME, _TABLE, _COLUMNS, _WHERE, unique=True)
