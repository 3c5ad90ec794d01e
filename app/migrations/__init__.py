"""Schema migrations (alembic).

Revisions are numbered. A rolling deploy runs two versions on one schema, so a revision must leave everything in place
that the version before it uses; what nobody uses any more goes in a later one.
"""

from pathlib import Path

import structlog
from sqlalchemy import Connection, MetaData, Table, inspect, text

from app.settings import ConfigurationError

log = structlog.get_logger()

HEAD = "0002"


def upgrade(conn: Connection, tables: MetaData) -> None:
    """Bring the schema behind `conn` to HEAD, each revision in a transaction of its own.

    The caller holds a lock that keeps other starters out. A schema that a newer version has made is left as it is;
    raises ConfigurationError if it no longer suits the `tables` of this version.
    """
    with conn.begin():
        current = revision(conn)
        if current is not None and current > HEAD:
            _refuse_unsuitable(conn, tables, current)
            log.warning("database.newer", revision=current, known=HEAD)
            return
    if current == HEAD:
        return
    # Only a start that has something to migrate pays for the import.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def is_current(conn: Connection) -> bool:
    """Whether the schema is at HEAD. Needs no lock."""
    with conn.begin():
        return revision(conn) == HEAD


def revision(conn: Connection) -> str | None:
    """What the schema was brought to; None for a database that holds none."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    found: str | None = conn.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _refuse_unsuitable(conn: Connection, tables: MetaData, current: str) -> None:
    for table in tables.sorted_tables:
        if reason := _unsuitable(conn, table):
            raise ConfigurationError(
                f"the database is at revision {current} and this version knows {HEAD}: {reason}. Deploy a newer version"
            )


def _unsuitable(conn: Connection, table: Table) -> str:
    if not inspect(conn).has_table(table.name):
        return f"{table.name} is gone"
    there = {column["name"]: column for column in inspect(conn).get_columns(table.name)}
    if gone := table.columns.keys() - there.keys():
        return f"{table.name}.{min(gone)} is gone"
    strange = [column for name, column in there.items() if name not in table.columns]
    demanded = [column["name"] for column in strange if not column["nullable"] and column["default"] is None]
    return f"{table.name}.{min(demanded)} has to be filled in" if demanded else ""
