"""Files have rows of their own, which documents point to.

The first half of a change. Processes of the revision before go on running beside this one, and know no files: triggers
write theirs. A later revision removes the triggers, and the column `holder` of idempotency keys.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0007"
down_revision = "0006"

_KEPT_DAYS = 30  # that a deleted document's file is remembered
_DISCARDED = "discarded_at IS NOT NULL"
_FACTS = "id, key, content_type, size, sha256, created_at"
_VERIFIED = "CASE WHEN {0}.status <> 'INITIATED' THEN {0}.sha256 END"
_DELETED = "event IN ('document.deleted', 'document.upload_expired')"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create_files()
        op.create_index("ix_files_discarded", "files", ["discarded_at"], unique=False, sqlite_where=sa.text(_DISCARDED))
        op.add_column("documents", sa.Column("file_id", sa.Uuid(), nullable=True))
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        if not sa.inspect(op.get_bind()).has_table("files"):
            _create_files()
        online.change("ALTER TABLE documents ADD COLUMN IF NOT EXISTS file_id UUID", *_POSTGRESQL)
        online.by_batch("documents", "id", _FILL)
        online.run(_VERIFY_COMPLETED_MEANWHILE, _DISCARD_DELETED_MEANWHILE, _REMEMBER_DELETED)
        online.build_index("ix_files_discarded", "files", ["discarded_at"], _DISCARDED)


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("discarded_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("key", name=op.f("uq_files_key")),
    )


# --- SQLite ----------------------------------------------------------------------------------------------------------

_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def _sqlite_file(row: str) -> str:
    """The file of a document of 0005, whose key is made of the document's id as Python writes it."""
    return f"{row}.id, {_sqlite_key(f'{row}.id')}, {row}.content_type, {row}.size, {_VERIFIED.format(row)}"


def _sqlite_key(column: str) -> str:
    spans = ("1, 8", "9, 4", "13, 4", "17, 4", "21")
    return "'documents/' || " + " || '-' || ".join(f"substr({column}, {span})" for span in spans)


_SQLITE = (
    f"INSERT INTO files ({_FACTS}) SELECT {_sqlite_file('d')}, d.created_at FROM documents d",  # noqa: S608 - our own names
    "UPDATE documents SET file_id = id",
    f"""
    INSERT INTO files ({_FACTS}, discarded_at)
    SELECT document_id, {_sqlite_key("document_id")}, '', 0, NULL, min(at), max(at) FROM events
    WHERE {_DELETED} AND at > strftime('%Y-%m-%d %H:%M:%f000', 'now', '-{_KEPT_DAYS} days') GROUP BY document_id
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 - names of our own
    f"""
    CREATE TRIGGER add_file_of_0005 AFTER INSERT ON documents WHEN NEW.file_id IS NULL BEGIN
        INSERT INTO files ({_FACTS}) VALUES ({_sqlite_file("NEW")}, NEW.created_at);
        UPDATE documents SET file_id = id WHERE id = NEW.id;
    END
    """,  # noqa: S608 - names of our own
    """
    CREATE TRIGGER verify_file_of_0005 AFTER UPDATE OF status ON documents
    WHEN OLD.status = 'INITIATED' AND NEW.status = 'UPLOADED' BEGIN
        UPDATE files SET size = NEW.size, sha256 = NEW.sha256 WHERE id = NEW.file_id;
    END
    """,
    # By the event, and not by the row: if an operator deletes a document's row by hand, its file is left alone.
    f"""
    CREATE TRIGGER discard_file_of_0005 AFTER INSERT ON events WHEN NEW.{_DELETED} BEGIN
        UPDATE files SET discarded_at = {_NOW} WHERE id = NEW.document_id AND discarded_at IS NULL;
    END
    """,  # noqa: S608 - names of our own
)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def _postgresql_file(row: str) -> str:
    """The same for PostgreSQL."""
    return f"{row}.id, 'documents/' || {row}.id, {row}.content_type, {row}.size, {_VERIFIED.format(row)}"


_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION add_file_of_0005() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.file_id IS NULL THEN
            INSERT INTO files ({_FACTS}) VALUES ({_postgresql_file("NEW")}, NEW.created_at);
            NEW.file_id := NEW.id;
        END IF;
        RETURN NEW;
    END $$
    """,  # noqa: S608 - names of our own
    "DROP TRIGGER IF EXISTS add_file_of_0005 ON documents",
    "CREATE TRIGGER add_file_of_0005 BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION add_file_of_0005()",
    """
    CREATE OR REPLACE FUNCTION verify_file_of_0005() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE files SET size = NEW.size, sha256 = NEW.sha256 WHERE id = NEW.file_id;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER IF EXISTS verify_file_of_0005 ON documents",
    """
    CREATE TRIGGER verify_file_of_0005 AFTER UPDATE OF status ON documents FOR EACH ROW
    WHEN (OLD.status = 'INITIATED' AND NEW.status = 'UPLOADED') EXECUTE FUNCTION verify_file_of_0005()
    """,
    """
    CREATE OR REPLACE FUNCTION discard_file_of_0005() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE files SET discarded_at = statement_timestamp()
        WHERE id = NEW.document_id AND discarded_at IS NULL;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER IF EXISTS discard_file_of_0005 ON events",
    f"""
    CREATE TRIGGER discard_file_of_0005 AFTER INSERT ON events FOR EACH ROW
    WHEN (NEW.{_DELETED}) EXECUTE FUNCTION discard_file_of_0005()
    """,
)
_FILL = f"""
    WITH added AS (
        INSERT INTO files ({_FACTS}) SELECT {_postgresql_file("d")}, d.created_at FROM documents d
        WHERE d.file_id IS NULL AND d.id > :after AND d.id <= :last ON CONFLICT DO NOTHING
    )
    UPDATE documents SET file_id = id WHERE file_id IS NULL AND id > :after AND id <= :last
"""  # noqa: S608 - names of our own
# Uploads whose completion had begun before the triggers were there, and ended after their row was read.
_VERIFY_COMPLETED_MEANWHILE = """
    UPDATE files f SET sha256 = d.sha256, size = d.size FROM documents d
    WHERE d.file_id = f.id AND f.sha256 IS NULL AND d.status <> 'INITIATED'
"""
_DISCARD_DELETED_MEANWHILE = """
    UPDATE files f SET discarded_at = statement_timestamp()
    WHERE discarded_at IS NULL AND NOT EXISTS (SELECT FROM documents d WHERE d.id = f.id)
"""
_REMEMBER_DELETED = f"""
    INSERT INTO files ({_FACTS}, discarded_at)
    SELECT document_id, 'documents/' || document_id, '', 0, NULL, min(at), max(at) FROM events
    WHERE {_DELETED} AND at > statement_timestamp() - interval '{_KEPT_DAYS} days' GROUP BY document_id
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of our own
