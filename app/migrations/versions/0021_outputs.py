"""Documents that were made of another one, and files that belong to a result.

The row of a result's file says whose it is and how large: it goes by cascade, when its document is gone. Triggers count
it as its owner's, and discard the file when the row goes, or when the result is of another job from then on: processes
of the revision before delete documents and publish results, and know nothing of such files.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0021"
down_revision = "0020"

_INDEX = ("ix_documents_parent", "documents", ["owner_id", "parent_id", "created_at", "id"])
_WITH_PARENT = "parent_id IS NOT NULL"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.add_column("documents", sa.Column("parent_id", sa.Uuid(), nullable=True))
        op.create_index(*_INDEX, unique=False, sqlite_where=sa.text(_WITH_PARENT))
        _create_table()
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        if not sa.inspect(op.get_bind()).has_table("result_files"):
            _create_table()
        online.change("ALTER TABLE documents ADD COLUMN IF NOT EXISTS parent_id UUID", *_POSTGRESQL)
        online.build_index(*_INDEX, _WITH_PARENT)


def _create_table() -> None:
    op.create_table(
        "result_files",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("processor", sa.String(length=50), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id", "processor"],
            ["document_results.document_id", "document_results.processor"],
            name=op.f("fk_result_files_document_id_document_results"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "processor", "number", name=op.f("pk_result_files")),
        sa.UniqueConstraint(
            "document_id", "processor", "name", name=op.f("uq_result_files_document_id_processor_name")
        ),
    )


_COUNT = "UPDATE usage SET bytes = bytes + NEW.size WHERE user_id = NEW.owner_id;"
_UNCOUNT = "UPDATE usage SET bytes = bytes - OLD.size WHERE user_id = OLD.owner_id;"
_DISCARD = "UPDATE files SET discarded_at = {} WHERE id = OLD.file_id AND discarded_at IS NULL;"
_REPLACE = "DELETE FROM result_files WHERE document_id = NEW.document_id AND processor = NEW.processor;"
_REPLACED = "OLD.job_id <> NEW.job_id"

_SQLITE = (
    f"CREATE TRIGGER count_result_file AFTER INSERT ON result_files BEGIN {_COUNT} END",
    f"""
    CREATE TRIGGER discard_result_file AFTER DELETE ON result_files BEGIN
        {_UNCOUNT}
        {_DISCARD.format("strftime('%Y-%m-%d %H:%M:%f000', 'now')")}
    END
    """,
    f"CREATE TRIGGER replace_result_files AFTER UPDATE ON document_results WHEN {_REPLACED} BEGIN {_REPLACE} END",
)
_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION count_result_file() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_COUNT}
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION discard_result_file() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_UNCOUNT}
        {_DISCARD.format("statement_timestamp()")}
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION replace_result_files() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_REPLACE}
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER IF EXISTS count_result_file ON result_files",
    """
    CREATE TRIGGER count_result_file AFTER INSERT ON result_files FOR EACH ROW
    EXECUTE FUNCTION count_result_file()
    """,
    "DROP TRIGGER IF EXISTS discard_result_file ON result_files",
    """
    CREATE TRIGGER discard_result_file AFTER DELETE ON result_files FOR EACH ROW
    EXECUTE FUNCTION discard_result_file()
    """,
    "DROP TRIGGER IF EXISTS replace_result_files ON document_results",
    f"""
    CREATE TRIGGER replace_result_files AFTER UPDATE ON document_results FOR EACH ROW
    WHEN ({_REPLACED}) EXECUTE FUNCTION replace_result_files()
    """,
)
