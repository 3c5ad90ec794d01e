"""Counts what each account uses, and holds the quotas that an operator has set for one. Makes what is kept end.

Triggers count, so that processes of the release before, expiry and changes by hand are counted too. They go with the
table `documents`: a revision that builds that table anew has to create them again.
"""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0010"
down_revision = "0009"

# A rejected upload has no bytes any more, and nobody waits for it.
_BYTES = "CASE WHEN {0}status = 'INITIATED' AND {0}error IS NOT NULL THEN 0 ELSE {0}size END"
_ANNOUNCED = "CASE WHEN {0}status = 'INITIATED' AND {0}error IS NULL THEN 1 ELSE 0 END"
_SUMS = f"coalesce(sum({_BYTES.format('')}), 0), count(*), coalesce(sum({_ANNOUNCED.format('')}), 0)"
_ADD = """
    ON CONFLICT (user_id) DO UPDATE SET bytes = usage.bytes + excluded.bytes,
    documents = usage.documents + excluded.documents, announced = usage.announced + excluded.announced
"""
_CHANGED = f"({_BYTES}) <> ({_BYTES.replace('{0}', '{1}')}) OR ({_ANNOUNCED}) <> ({_ANNOUNCED.replace('{0}', '{1}')})"
_CHANGED = _CHANGED.format("OLD.", "NEW.")
_CHANGE = f"""
    UPDATE usage SET bytes = bytes + {_BYTES.format("NEW.")} - {_BYTES.format("OLD.")},
    announced = announced + {_ANNOUNCED.format("NEW.")} - {_ANNOUNCED.format("OLD.")} WHERE user_id = NEW.owner_id;
"""  # noqa: S608 - names of our own

# Of a column that is empty, so there is nothing to check.
_DOCUMENT = "fk_idempotency_keys_document_id_documents"
_WITH_DOCUMENT = f"CONSTRAINT {_DOCUMENT} REFERENCES documents (id) ON DELETE CASCADE"
_INDEXES = {
    "ix_idempotency_keys_document_id": ("idempotency_keys", "document_id"),
    "ix_refresh_tokens_expires_at": ("refresh_tokens", "expires_at"),
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _create_tables()
        for statement in _SQLITE:
            op.execute(statement)
        with op.batch_alter_table("idempotency_keys") as keys:
            keys.add_column(sa.Column("document_id", sa.Uuid(), nullable=True))
            keys.create_foreign_key(_DOCUMENT, "documents", ["document_id"], ["id"], ondelete="CASCADE")
        for name, (table, column) in _INDEXES.items():
            op.create_index(name, table, [column], unique=False)
        return
    with op.get_context().autocommit_block():
        if not sa.inspect(op.get_bind()).has_table("quotas"):
            _create_tables()
        online.run(*_FUNCTIONS)
        online.change(*_TRIGGERS)
        _count_documents()
        online.run("DROP FUNCTION recount_usage")
        online.change(
            f"ALTER TABLE idempotency_keys ADD COLUMN IF NOT EXISTS document_id UUID {_WITH_DOCUMENT}",
        )
        for name, (table, column) in _INDEXES.items():
            online.build_index(name, table, [column], None)


def _create_tables() -> None:
    for table, columns in (
        ("usage", [_number(name, nullable=False) for name in ("bytes", "documents", "announced")]),
        ("quotas", [_number(name, nullable=True) for name in ("bytes", "documents", "announced", "jobs")]),
    ):
        op.create_table(
            table,
            sa.Column("user_id", sa.Uuid(), nullable=False),
            *columns,
            sa.ForeignKeyConstraint(
                ["user_id"], ["users.id"], name=op.f(f"fk_{table}_user_id_users"), ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint("user_id", name=op.f(f"pk_{table}")),
            if_not_exists=True,
        )


def _number(name: str, *, nullable: bool) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger() if name == "bytes" else sa.Integer(), nullable=nullable)


# --- SQLite ----------------------------------------------------------------------------------------------------------

_SQLITE = (
    f"INSERT INTO usage (user_id, bytes, documents, announced) SELECT owner_id, {_SUMS} FROM documents GROUP BY 1",  # noqa: S608 - names of our own
    f"""
    CREATE TRIGGER count_added AFTER INSERT ON documents BEGIN
        INSERT INTO usage (user_id, bytes, documents, announced)
        VALUES (NEW.owner_id, {_BYTES.format("NEW.")}, 1, {_ANNOUNCED.format("NEW.")}) {_ADD};
    END
    """,  # noqa: S608 - names of our own
    f"""
    CREATE TRIGGER count_changed AFTER UPDATE OF size, status, error ON documents WHEN {_CHANGED} BEGIN
        {_CHANGE}
    END
    """,
    f"""
    CREATE TRIGGER count_deleted AFTER DELETE ON documents BEGIN
        UPDATE usage SET bytes = bytes - {_BYTES.format("OLD.")}, documents = documents - 1,
        announced = announced - {_ANNOUNCED.format("OLD.")} WHERE user_id = OLD.owner_id;
    END
    """,  # noqa: S608 - names of our own
)

# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def _function(name: str, body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
    )


_FUNCTIONS = (
    _function(
        "count_added",
        f"""
        INSERT INTO usage (user_id, bytes, documents, announced)
        SELECT owner_id, {_SUMS} FROM added GROUP BY owner_id {_ADD};
        """,  # noqa: S608 - names of our own
    ),
    _function("count_changed", _CHANGE),
    _function(
        "count_deleted",
        f"""
        UPDATE usage SET bytes = usage.bytes - gone.bytes, documents = usage.documents - gone.documents,
        announced = usage.announced - gone.announced
        FROM (SELECT owner_id, {_SUMS} FROM deleted GROUP BY owner_id) AS gone (owner_id, bytes, documents, announced)
        WHERE usage.user_id = gone.owner_id;
        """,  # noqa: S608 - names of our own
    ),
    # The row is locked first. Whoever has changed a document of the owner, and holds that lock, has then committed, and
    # is seen by the next statement; whoever has not got there yet is not seen, and adds to what is counted here.
    f"""
    CREATE OR REPLACE FUNCTION recount_usage(owner UUID) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO usage (user_id, bytes, documents, announced) VALUES (owner, 0, 0, 0) ON CONFLICT DO NOTHING;
        PERFORM FROM usage WHERE user_id = owner FOR UPDATE;
        UPDATE usage SET (bytes, documents, announced) = (SELECT {_SUMS} FROM documents WHERE owner_id = owner)
        WHERE user_id = owner;
    END $$
    """,  # noqa: S608 - names of our own
)
_TRIGGERS = (
    "DROP TRIGGER IF EXISTS count_added ON documents",
    """
    CREATE TRIGGER count_added AFTER INSERT ON documents REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_added()
    """,
    "DROP TRIGGER IF EXISTS count_changed ON documents",
    f"""
    CREATE TRIGGER count_changed AFTER UPDATE OF size, status, error ON documents
    FOR EACH ROW WHEN ({_CHANGED}) EXECUTE FUNCTION count_changed()
    """,
    "DROP TRIGGER IF EXISTS count_deleted ON documents",
    """
    CREATE TRIGGER count_deleted AFTER DELETE ON documents REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted()
    """,
)


def _count_documents() -> None:
    """Count what is there, one account after the other: nobody waits for longer than it takes to count one."""
    owners = op.get_bind().scalars(sa.text("SELECT DISTINCT owner_id FROM documents")).all()
    for owner in owners:
        op.get_bind().execute(sa.text("SELECT recount_usage(:owner)"), {"owner": owner})
