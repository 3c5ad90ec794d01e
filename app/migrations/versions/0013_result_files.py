"""Large results are files in the storage, to which their rows point.

Triggers discard such a file when its row goes, or is of another job from then on, and count its bytes as its owner's:
processes of the revision before delete documents and publish results, and know nothing of the file.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0013"
down_revision = "0012"

_COLUMNS = (sa.Column("file_id", sa.Uuid(), nullable=True), sa.Column("size", sa.BigInteger(), nullable=True))
_REPLACED = "OLD.file_id IS NOT NULL AND OLD.job_id <> NEW.job_id"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for column in _COLUMNS:
            op.add_column("document_results", column)
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        online.change(
            "ALTER TABLE document_results ADD COLUMN IF NOT EXISTS file_id UUID",
            "ALTER TABLE document_results ADD COLUMN IF NOT EXISTS size BIGINT",
            *_POSTGRESQL,
        )


_DISCARD = "UPDATE files SET discarded_at = {} WHERE id = OLD.file_id AND discarded_at IS NULL;"
# Whoever does not know the columns leaves them as they were.
_KEPT = "NEW.file_id = OLD.file_id"

_SIZE = "coalesce((SELECT size FROM files WHERE id = {}.file_id), 0)"
_COUNT = f"""
    UPDATE usage SET bytes = bytes + {_SIZE.format("NEW")} - {{old}}
    WHERE user_id = (SELECT owner_id FROM documents WHERE id = NEW.document_id);
"""  # noqa: S608 - our own names
# When the row of a result goes, its document's, which names the owner, is gone.
_OF_DOCUMENT = "document_results r JOIN files f ON f.id = r.file_id WHERE r.document_id = OLD.id"
_UNCOUNT = f"UPDATE usage SET bytes = bytes - (SELECT sum(f.size) FROM {_OF_DOCUMENT}) WHERE user_id = OLD.owner_id;"  # noqa: S608 - our own names

_SQLITE = (
    f"""
    CREATE TRIGGER count_published AFTER INSERT ON document_results WHEN NEW.file_id IS NOT NULL BEGIN
        {_COUNT.format(old=0)}
    END
    """,
    f"""
    CREATE TRIGGER count_replaced AFTER UPDATE ON document_results WHEN NEW.file_id IS NOT OLD.file_id BEGIN
        {_COUNT.format(old=_SIZE.format("OLD"))}
    END
    """,
    f"""
    CREATE TRIGGER count_results_deleted BEFORE DELETE ON documents WHEN EXISTS (SELECT 1 FROM {_OF_DOCUMENT}) BEGIN
        {_UNCOUNT}
    END
    """,  # noqa: S608 - our own names
    f"""
    CREATE TRIGGER discard_file_of_replaced_result AFTER UPDATE ON document_results WHEN {_REPLACED} BEGIN
        {_DISCARD.format("strftime('%Y-%m-%d %H:%M:%f000', 'now')")}
        UPDATE document_results SET file_id = NULL, size = NULL
        WHERE document_id = NEW.document_id AND processor = NEW.processor AND {_KEPT};
    END
    """,  # noqa: S608 - our own names
    f"""
    CREATE TRIGGER discard_file_of_deleted_result AFTER DELETE ON document_results WHEN OLD.file_id IS NOT NULL BEGIN
        {_DISCARD.format("strftime('%Y-%m-%d %H:%M:%f000', 'now')")}
    END
    """,
)
_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION count_published() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_COUNT.format(old="0")}
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION count_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_COUNT.format(old=_SIZE.format("OLD"))}
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE FUNCTION count_results_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM {_OF_DOCUMENT}) THEN
            {_UNCOUNT}
        END IF;
        RETURN OLD;
    END $$
    """,
    "DROP TRIGGER IF EXISTS count_published ON document_results",
    """
    CREATE TRIGGER count_published AFTER INSERT ON document_results FOR EACH ROW
    WHEN (NEW.file_id IS NOT NULL) EXECUTE FUNCTION count_published()
    """,
    "DROP TRIGGER IF EXISTS count_replaced ON document_results",
    # Not `UPDATE OF file_id`: that is not fired by what the trigger below changes.
    """
    CREATE TRIGGER count_replaced AFTER UPDATE ON document_results FOR EACH ROW
    WHEN (NEW.file_id IS DISTINCT FROM OLD.file_id) EXECUTE FUNCTION count_replaced()
    """,
    "DROP TRIGGER IF EXISTS count_results_deleted ON documents",
    """
    CREATE TRIGGER count_results_deleted BEFORE DELETE ON documents FOR EACH ROW
    EXECUTE FUNCTION count_results_deleted()
    """,
    f"""
    CREATE OR REPLACE FUNCTION discard_file_of_result() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_DISCARD.format("statement_timestamp()")}
        IF TG_OP = 'UPDATE' AND {_KEPT} THEN
            NEW.file_id := NULL;
            NEW.size := NULL;
        END IF;
        RETURN NEW;
    END $$
    """,
    "DROP TRIGGER IF EXISTS discard_file_of_replaced_result ON document_results",
    f"""
    CREATE TRIGGER discard_file_of_replaced_result BEFORE UPDATE ON document_results FOR EACH ROW
    WHEN ({_REPLACED}) EXECUTE FUNCTION discard_file_of_result()
    """,
    "DROP TRIGGER IF EXISTS discard_file_of_deleted_result ON document_results",
    """
    CREATE TRIGGER discard_file_of_deleted_result AFTER DELETE ON document_results FOR EACH ROW
    WHEN (OLD.file_id IS NOT NULL) EXECUTE FUNCTION discard_file_of_result()
    """,
)
