"""What happens to documents after their processing: trash, expiry, holds, and the files that they had before.

Triggers count the files of previous rows, with those of their results, as their owner's, and discard them when the rows
go: processes of the revision before delete documents, and know nothing of such files. Nor do they know of holds, so
triggers refuse to delete a document that is on hold, and files that it had.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0023"
down_revision = "0022"

_MOMENT = sa.DateTime(timezone=True)
_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("deleted_at", _MOMENT, nullable=True),
    sa.Column("expires_at", _MOMENT, nullable=True),
    sa.Column("hold", sa.String(length=200), nullable=True),
    sa.Column("file_number", sa.Integer(), server_default="1", nullable=False),
    sa.Column("file_label", sa.String(length=100), nullable=True),
    sa.Column("file_keep", sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column("file_stored_at", _MOMENT, nullable=True),
    sa.Column("file_stored_by", sa.String(length=100), nullable=True),
)
_INDEXES = {
    "ix_documents_trash": ("documents", ["owner_id", "deleted_at", "id"], "deleted_at IS NOT NULL"),
    "ix_documents_trashed": ("documents", ["deleted_at"], "deleted_at IS NOT NULL"),
    "ix_documents_expiring": ("documents", ["expires_at"], "expires_at IS NOT NULL AND deleted_at IS NULL"),
    "ix_documents_held": ("documents", ["owner_id", "created_at", "id"], "hold IS NOT NULL"),
    "ix_document_results_created_at": ("document_results", ["created_at"], None),
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for column in _COLUMNS:
            op.add_column("documents", column)
        op.add_column("document_results", sa.Column("file_number", sa.Integer(), server_default="1", nullable=False))
        _create_tables()
        for name, (table, columns, where) in _INDEXES.items():
            op.create_index(name, table, columns, sqlite_where=sa.text(where) if where else None)
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        online.change(*_ADD_COLUMNS)
        _create_tables()
        online.change(*_POSTGRESQL)
        for name, (table, columns, where) in _INDEXES.items():
            online.build_index(name, table, columns, where)


def _create_tables() -> None:
    """Tables that nothing is in yet."""
    op.create_table(
        "previous_files",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("filename", _TEXT, nullable=False),
        sa.Column("content_type", sa.String(length=100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=True),
        sa.Column("keep", sa.Boolean(), nullable=False),
        sa.Column("stored_at", _MOMENT, nullable=False),
        sa.Column("stored_by", sa.String(length=100), nullable=True),
        sa.Column("replaced_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_previous_files_document_id_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("document_id", "number", name=op.f("pk_previous_files")),
        if_not_exists=True,
    )
    op.create_index("ix_previous_files_replaced_at", "previous_files", ["replaced_at"], if_not_exists=True)
    op.create_table(
        "previous_results",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("file_number", sa.Integer(), nullable=False),
        sa.Column("processor", sa.String(length=50), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("processor_version", sa.String(length=50), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("input_sha256", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id", "file_number"],
            ["previous_files.document_id", "previous_files.number"],
            name=op.f("fk_previous_results_document_id_previous_files"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "file_number", "processor", name=op.f("pk_previous_results")),
        if_not_exists=True,
    )
    op.create_index("ix_previous_results_created_at", "previous_results", ["created_at"], if_not_exists=True)
    op.create_table(
        "previous_result_files",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("file_number", sa.Integer(), nullable=False),
        sa.Column("processor", sa.String(length=50), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id", "file_number", "processor"],
            ["previous_results.document_id", "previous_results.file_number", "previous_results.processor"],
            name=op.f("fk_previous_result_files_document_id_previous_results"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "document_id", "file_number", "processor", "number", name=op.f("pk_previous_result_files")
        ),
        if_not_exists=True,
    )


_TEXT = sa.String(length=255).with_variant(sa.String(length=255, collation="C"), "postgresql")
_SIZED = ("previous_files", "previous_result_files")  # their rows say how large their file is
_COUNT = "UPDATE usage SET bytes = bytes + NEW.size WHERE user_id = NEW.owner_id;"
_UNCOUNT = "UPDATE usage SET bytes = bytes - OLD.size WHERE user_id = OLD.owner_id;"
# `previous_results.size` is that of the JSON; what counts is the file, which is compressed.
_FILE_SIZE = "coalesce((SELECT size FROM files WHERE id = {}.file_id), 0)"
_COUNT_RESULT = f"UPDATE usage SET bytes = bytes + {_FILE_SIZE.format('NEW')} WHERE user_id = NEW.owner_id;"  # noqa: S608 - our own names
_UNCOUNT_RESULT = f"UPDATE usage SET bytes = bytes - {_FILE_SIZE.format('OLD')} WHERE user_id = OLD.owner_id;"  # noqa: S608 - our own names
_DISCARD = "UPDATE files SET discarded_at = {} WHERE id = OLD.file_id AND discarded_at IS NULL;"
# Those that go with their document are uncounted with it (revision 0013): by then, nobody's id is found here.
_UNCOUNT_CURRENT = (
    f"UPDATE usage SET bytes = bytes - {_FILE_SIZE.format('OLD')}"  # noqa: S608 - our own names
    " WHERE user_id = (SELECT owner_id FROM documents WHERE id = OLD.document_id);"
)
_ON_HOLD = "the document is on hold"
_IS_HELD = "EXISTS (SELECT 1 FROM documents WHERE id = OLD.document_id AND hold IS NOT NULL)"

_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
_SQLITE = (
    *(f"CREATE TRIGGER count_{table} AFTER INSERT ON {table} BEGIN {_COUNT} END" for table in _SIZED),
    *(
        f"CREATE TRIGGER discard_{table} AFTER DELETE ON {table} BEGIN {_UNCOUNT} {_DISCARD.format(_NOW)} END"
        for table in _SIZED
    ),
    f"""
    CREATE TRIGGER count_previous_results AFTER INSERT ON previous_results WHEN NEW.file_id IS NOT NULL BEGIN
        {_COUNT_RESULT}
    END
    """,
    f"""
    CREATE TRIGGER discard_previous_results AFTER DELETE ON previous_results WHEN OLD.file_id IS NOT NULL BEGIN
        {_UNCOUNT_RESULT}
        {_DISCARD.format(_NOW)}
    END
    """,
    f"""
    CREATE TRIGGER uncount_deleted_result AFTER DELETE ON document_results WHEN OLD.file_id IS NOT NULL BEGIN
        {_UNCOUNT_CURRENT}
    END
    """,
    f"""
    CREATE TRIGGER refuse_on_hold BEFORE DELETE ON documents WHEN OLD.hold IS NOT NULL BEGIN
        SELECT RAISE(ABORT, '{_ON_HOLD}');
    END
    """,
    f"""
    CREATE TRIGGER refuse_file_on_hold BEFORE DELETE ON previous_files WHEN {_IS_HELD} BEGIN
        SELECT RAISE(ABORT, '{_ON_HOLD}');
    END
    """,
)

_ADD_COLUMNS = (
    *(
        f"ALTER TABLE documents ADD COLUMN IF NOT EXISTS {definition}"
        for definition in (
            "deleted_at TIMESTAMPTZ",
            "expires_at TIMESTAMPTZ",
            "hold VARCHAR(200)",
            "file_number INTEGER DEFAULT 1 NOT NULL",
            "file_label VARCHAR(100)",
            "file_keep BOOLEAN DEFAULT false NOT NULL",
            "file_stored_at TIMESTAMPTZ",
            "file_stored_by VARCHAR(100)",
        )
    ),
    "ALTER TABLE document_results ADD COLUMN IF NOT EXISTS file_number INTEGER DEFAULT 1 NOT NULL",
)


def _function(name: str, body: str, answer: str = "NULL") -> str:
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$"
        f" BEGIN {body} RETURN {answer}; END $$"
    )


def _trigger(name: str, event: str, table: str, when: str = "") -> tuple[str, str]:
    condition = f"WHEN ({when}) " if when else ""
    return (
        f"DROP TRIGGER IF EXISTS {name} ON {table}",
        f"CREATE TRIGGER {name} {event} ON {table} FOR EACH ROW {condition}EXECUTE FUNCTION {name}()",
    )


_DISCARD_NOW = _DISCARD.format("statement_timestamp()")
_POSTGRESQL = (
    *(_function(f"count_{table}", _COUNT) for table in _SIZED),
    *(_function(f"discard_{table}", f"{_UNCOUNT} {_DISCARD_NOW}") for table in _SIZED),
    _function("count_previous_results", _COUNT_RESULT),
    _function("discard_previous_results", f"{_UNCOUNT_RESULT} {_DISCARD_NOW}"),
    _function("uncount_deleted_result", _UNCOUNT_CURRENT),
    _function("refuse_on_hold", f"RAISE EXCEPTION '{_ON_HOLD}';", "OLD"),
    _function("refuse_file_on_hold", f"IF {_IS_HELD} THEN RAISE EXCEPTION '{_ON_HOLD}'; END IF;", "OLD"),
    *(statement for table in _SIZED for statement in _trigger(f"count_{table}", "AFTER INSERT", table)),
    *(statement for table in _SIZED for statement in _trigger(f"discard_{table}", "AFTER DELETE", table)),
    *_trigger("count_previous_results", "AFTER INSERT", "previous_results", "NEW.file_id IS NOT NULL"),
    *_trigger("discard_previous_results", "AFTER DELETE", "previous_results", "OLD.file_id IS NOT NULL"),
    *_trigger("uncount_deleted_result", "AFTER DELETE", "document_results", "OLD.file_id IS NOT NULL"),
    *_trigger("refuse_on_hold", "BEFORE DELETE", "documents", "OLD.hold IS NOT NULL"),
    *_trigger("refuse_file_on_hold", "BEFORE DELETE", "previous_files"),
)
