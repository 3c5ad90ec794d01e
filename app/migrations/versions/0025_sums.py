"""PostgreSQL counts files that go together at once, not one after the other.

A row that a transaction changes again and again is found each time through all that it was before: to delete 30,000
files of an account took longer than a statement may.
"""

from alembic import op

from app.migrations import online

revision = "0025"
down_revision = "0024"

_TABLES = {
    "discard_result_file": "result_files",
    "discard_previous_files": "previous_files",
    "discard_previous_result_files": "previous_result_files",
    "discard_previous_results": "previous_results",
}
# The triggers that were there belong to each row, and the functions of the same names to them.
_BODY = """
    UPDATE usage SET bytes = usage.bytes - gone.bytes
    FROM (SELECT deleted.owner_id, sum(files.size) AS bytes FROM deleted JOIN files ON files.id = deleted.file_id
          GROUP BY deleted.owner_id) AS gone
    WHERE usage.user_id = gone.owner_id;
    UPDATE files SET discarded_at = statement_timestamp()
    FROM deleted WHERE files.id = deleted.file_id AND files.discarded_at IS NULL;
"""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return  # which has no such triggers, and finds a row as fast as ever
    with op.get_context().autocommit_block():
        for name, table in _TABLES.items():
            online.change(
                f"CREATE OR REPLACE FUNCTION {name}_all() RETURNS trigger LANGUAGE plpgsql AS $$"
                f" BEGIN {_BODY} RETURN NULL; END $$",
                # In one transaction: a file must be counted once, whenever this is killed.
                f"""
                DO $$ BEGIN
                    DROP TRIGGER IF EXISTS {name} ON {table};
                    CREATE TRIGGER {name} AFTER DELETE ON {table} REFERENCING OLD TABLE AS deleted
                    FOR EACH STATEMENT EXECUTE FUNCTION {name}_all();
                END $$
                """,
            )
