"""Steps of a migration on PostgreSQL while the service runs: none of them locks a table for long.

Each runs by itself, outside of the migration's transaction. So a migration that is killed is run again from its
beginning, and every step must have the same result the second time.
"""

from collections.abc import Sequence

from alembic import op
from sqlalchemy import bindparam, text

BATCH = 5000  # rows


def run(*statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    for statement in statements:
        op.execute(text(statement))


def build_index(name: str, table: str, columns: Sequence[str], where: str | None, *, unique: bool = False) -> None:
    """Build an index beside what is being written. One that a killed build has left invalid is built anew."""
    valid = op.get_bind().scalar(
        text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": name}
    )
    if valid is False:
        run(f"DROP INDEX CONCURRENTLY {name}")
    condition = f" WHERE {where}" if where else ""
    kind = "UNIQUE INDEX" if unique else "INDEX"
    run(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {table} ({', '.join(columns)}){condition}")


def by_batch(table: str, key: str, statement: str) -> None:
    """Run a statement over all rows of a table, BATCH at a time: those with a key above `:after`, up to `:last`."""
    end = text(
        f"SELECT max({key}::text)::uuid FROM"  # noqa: S608 - names of our own
        f" (SELECT {key} FROM {table} WHERE {key} > :after ORDER BY {key} LIMIT {BATCH}) AS batch"
    )
    after = "00000000-0000-0000-0000-000000000000"
    while last := op.get_bind().scalar(end, {"after": after}):
        op.get_bind().execute(text(statement).bindparams(bindparam("after", after), bindparam("last", last)))
        after = last
