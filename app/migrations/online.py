"""Steps of a migration on PostgreSQL while the service runs: none of them locks a table for long.

Each runs by itself, outside of the migration's transaction. So a migration that is killed is run again from its
beginning, and every step must have the same result the second time.
"""

import time
from collections.abc import Sequence
from uuid import UUID

from alembic import op
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.exc import DBAPIError

BATCH = 500  # rows. Who writes to one of them waits until the batch is committed
LOCK_TIMEOUT = 0.5  # seconds that a change of a table waits for its lock at once
PAUSE = 1.0  # seconds until it waits again
CHANGE_TIMEOUT = 60.0  # seconds after which it gives up
LOCK_NOT_AVAILABLE = "55P03"


def run(*statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    for statement in statements:
        op.execute(text(statement))


def change(*statements: str) -> None:
    """Run statements that lock a table against everybody, as `run` does.

    A lock that is waited for blocks everybody who asks later. So this waits briefly, again and again, until the reader
    that is in the way has ended. Raises DBAPIError after CHANGE_TIMEOUT.
    """
    run(f"SET lock_timeout = '{LOCK_TIMEOUT}s'")
    for statement in statements:
        give_up_at = time.monotonic() + CHANGE_TIMEOUT
        while True:
            try:
                run(statement)
                break
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or time.monotonic() > give_up_at:
                    raise
            time.sleep(PAUSE)
    run("RESET lock_timeout")


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
    """Run a statement over all rows of a table, BATCH at a time: those with a key above `:after`, up to `:last`.

    The key is a UUID.
    """
    batch = f"SELECT {key} FROM {table} WHERE {key} > :after ORDER BY {key} LIMIT {BATCH}"  # noqa: S608 - our own names
    last_of_batch = f"SELECT max(key::text)::uuid FROM ({batch}) AS batch (key)"  # noqa: S608 - as above
    end = text(last_of_batch).bindparams(bindparam("after", type_=Uuid))
    fill = text(statement).bindparams(bindparam("after", type_=Uuid), bindparam("last", type_=Uuid))
    after = UUID(int=0)
    while last := op.get_bind().scalar(end, {"after": after}):
        op.get_bind().execute(fill, {"after": after, "last": last})
        after = last
