"""An index of runs of three characters for searches in names and descriptions.

It is filled in afterwards, by a chore, from a queue. Triggers fill the queue, so that processes of the release before
do so, too. They go with the table `documents`: a revision that builds that table anew has to create them again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

from app.migrations import online

revision = "0014"
down_revision = "0013"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create_tables()
        for statement in (*_QUEUE, *(_WORDS if _has_trigrams() else ())):
            op.execute(statement)
        op.execute("INSERT INTO unindexed_documents (document_id) SELECT id FROM documents ORDER BY id")
        return
    with op.get_context().autocommit_block():
        _create_tables()
        online.run(_EXTENSION)
        if schema := op.get_bind().scalar(sa.text(_SCHEMA)):
            online.run(f"CREATE INDEX IF NOT EXISTS {_INDEX} USING gin (text {schema}.gin_trgm_ops)")
        online.run(_FUNCTION)
        online.change(*_TRIGGERS)
        online.by_batch("documents", "id", _FILL)


def _create_tables() -> None:
    op.create_table(
        "document_texts",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_document_texts")),
        sa.UniqueConstraint("document_id", name=op.f("uq_document_texts_document_id")),
        if_not_exists=True,
    )
    op.create_index(
        op.f("ix_document_texts_owner_id"), "document_texts", ["owner_id"], unique=False, if_not_exists=True
    )
    op.create_table(
        "unindexed_documents",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_unindexed_documents")),
        if_not_exists=True,
    )


_CHANGED = "OLD.filename IS DISTINCT FROM NEW.filename OR OLD.description IS DISTINCT FROM NEW.description"

# --- SQLite ----------------------------------------------------------------------------------------------------------

_QUEUED = "BEGIN INSERT INTO unindexed_documents (document_id) VALUES ({}.id); END"
_CHANGE = f"AFTER UPDATE OF filename, description ON documents WHEN {_CHANGED.replace('IS DISTINCT FROM', 'IS NOT')}"
_QUEUE = (
    f"CREATE TRIGGER queue_added AFTER INSERT ON documents {_QUEUED.format('NEW')}",
    f"CREATE TRIGGER queue_changed {_CHANGE} {_QUEUED.format('NEW')}",
    f"CREATE TRIGGER queue_deleted AFTER DELETE ON documents {_QUEUED.format('OLD')}",
)
# Without the texts (content) and positions in them (detail) the index has a fifth of the size.
_WORDS = (
    """
    CREATE VIRTUAL TABLE document_words USING fts5
        (text, tokenize = 'trigram', content = '', detail = none, columnsize = 0)
    """,
    """
    CREATE TRIGGER index_text AFTER INSERT ON document_texts BEGIN
        INSERT INTO document_words (rowid, text) VALUES (NEW.number, NEW.text);
    END
    """,
    """
    CREATE TRIGGER unindex_text AFTER DELETE ON document_texts BEGIN
        INSERT INTO document_words (document_words, rowid, text) VALUES ('delete', OLD.number, OLD.text);
    END
    """,
)


def _has_trigrams() -> bool:
    """Return whether this SQLite has FTS5, and its tokenizer of 3.34. Without it, searches read all documents."""
    try:
        op.execute("CREATE VIRTUAL TABLE temp.trigrams USING fts5 (text, tokenize = 'trigram')")
    except DBAPIError:
        return False
    op.execute("DROP TABLE temp.trigrams")
    return True


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

# Whoever may create tables may also create this extension, unless the operator has forbidden it or not installed it.
_EXTENSION = """
    DO $$ BEGIN CREATE EXTENSION IF NOT EXISTS pg_trgm;
    EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN NULL; END $$
"""
_SCHEMA = "SELECT quote_ident(extnamespace::regnamespace::text) FROM pg_extension WHERE extname = 'pg_trgm'"
_INDEX = "ix_document_texts_text ON document_texts"
_FUNCTION = """
    CREATE OR REPLACE FUNCTION queue_document() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO unindexed_documents (document_id) VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END);
        RETURN NULL;
    END $$
"""
_ON = "ON documents FOR EACH ROW"
_QUEUES = "EXECUTE FUNCTION queue_document()"
_TRIGGERS = (
    "DROP TRIGGER IF EXISTS queue_added ON documents",
    f"CREATE TRIGGER queue_added AFTER INSERT OR DELETE {_ON} {_QUEUES}",
    "DROP TRIGGER IF EXISTS queue_changed ON documents",
    f"CREATE TRIGGER queue_changed AFTER UPDATE OF filename, description {_ON} WHEN ({_CHANGED}) {_QUEUES}",
)
_FILL = """
    INSERT INTO unindexed_documents (document_id)
    SELECT id FROM documents WHERE id > :after AND id <= :last ORDER BY id
"""
