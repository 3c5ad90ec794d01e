"""The results of stages, as a cache.

Triggers discard the file of a row that goes or gets another one, and delete the rows of a content with the last
document of their owner that has it: whoever deletes documents need not know of them.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create()
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        _create()
        online.change(*_POSTGRESQL)


def _create() -> None:
    """A table that nothing is in yet."""
    op.create_table(
        "stage_results",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("input_sha256", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_stage_results_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_stage_results")),
        if_not_exists=True,
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "stage_results", columns, if_not_exists=True)


_INDEXES = {
    "ix_stage_results_owner_id_input_sha256": ["owner_id", "input_sha256"],
    "ix_stage_results_last_used_at_size": ["last_used_at", "size"],
}
_DISCARD = "UPDATE files SET discarded_at = {} WHERE id = OLD.file_id AND discarded_at IS NULL;"
_KEPT = "stage_results WHERE owner_id = OLD.owner_id AND input_sha256 = OLD.sha256"
_OTHERS = "documents WHERE owner_id = OLD.owner_id AND sha256 = OLD.sha256"
_LAST = f"EXISTS (SELECT 1 FROM {_KEPT}) AND NOT EXISTS (SELECT 1 FROM {_OTHERS})"  # noqa: S608 - our own names

_SQLITE = (
    f"""
    CREATE TRIGGER discard_file_of_replaced_stage AFTER UPDATE ON stage_results
    WHEN OLD.file_id IS NOT NULL AND NEW.file_id IS NOT OLD.file_id BEGIN
        {_DISCARD.format("strftime('%Y-%m-%d %H:%M:%f000', 'now')")}
    END
    """,
    f"""
    CREATE TRIGGER discard_file_of_deleted_stage AFTER DELETE ON stage_results WHEN OLD.file_id IS NOT NULL BEGIN
        {_DISCARD.format("strftime('%Y-%m-%d %H:%M:%f000', 'now')")}
    END
    """,
    f"""
    CREATE TRIGGER delete_stages_of_last_document AFTER DELETE ON documents WHEN {_LAST} BEGIN
        DELETE FROM {_KEPT};
    END
    """,  # noqa: S608 - our own names
)
_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION discard_file_of_stage() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_DISCARD.format("statement_timestamp()")}
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION delete_stages_of_last_document() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF {_LAST} THEN
            DELETE FROM {_KEPT};
        END IF;
        RETURN NULL;
    END $$
    """,  # noqa: S608 - our own names
    "DROP TRIGGER IF EXISTS discard_file_of_replaced_stage ON stage_results",
    """
    CREATE TRIGGER discard_file_of_replaced_stage AFTER UPDATE ON stage_results FOR EACH ROW
    WHEN (OLD.file_id IS NOT NULL AND NEW.file_id IS DISTINCT FROM OLD.file_id)
    EXECUTE FUNCTION discard_file_of_stage()
    """,
    "DROP TRIGGER IF EXISTS discard_file_of_deleted_stage ON stage_results",
    """
    CREATE TRIGGER discard_file_of_deleted_stage AFTER DELETE ON stage_results FOR EACH ROW
    WHEN (OLD.file_id IS NOT NULL) EXECUTE FUNCTION discard_file_of_stage()
    """,
    "DROP TRIGGER IF EXISTS delete_stages_of_last_document ON documents",
    """
    CREATE TRIGGER delete_stages_of_last_document AFTER DELETE ON documents FOR EACH ROW
    EXECUTE FUNCTION delete_stages_of_last_document()
    """,
)
