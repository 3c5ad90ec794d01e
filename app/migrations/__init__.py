"""Schema migrations, by Alembic.

Revisions are numbered from 0001. A rolling deploy runs two versions of the code on one schema, so a revision keeps
everything that the previous version of the code uses; a later revision drops what is no longer used.
"""

import re
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Column, Connection, MetaData, Table, inspect, text
from sqlalchemy.engine.interfaces import ReflectedColumn

from app.errors import ConfigurationError

log = structlog.get_logger()

HEAD = "0027"
_NUMBER = re.compile("(?!0000)[0-9]{4}")


def upgrade(conn: Connection, tables: MetaData) -> None:
    """Bring the schema behind `conn` to HEAD, each revision in a transaction of its own.

    The caller holds a lock that keeps other processes from migrating. A schema of a newer version is left as it is.
    Raises ConfigurationError if such a schema does not suit the `tables` of this version, or if the database's revision
    is not one of this service's.
    """
    with conn.begin():
        current = revision(conn)
        if current is not None and not _NUMBER.fullmatch(current):
            raise ConfigurationError(f"the database is at revision {current}, which is none of this service's")
        if current is not None and current > HEAD:
            _refuse_unsuitable(conn, tables, current)
            log.warning("database.newer", revision=current, known=HEAD)
            return
    if current == HEAD:
        return
    # Imported here, so that a start with nothing to migrate does not pay for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def is_current(conn: Connection) -> bool:
    """Return whether the schema is at HEAD. Needs no lock."""
    with conn.begin():
        return revision(conn) == HEAD


def revision(conn: Connection) -> str | None:
    """Return the schema's revision, or None for an empty database."""
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
    demanded = [name for name, column in there.items() if _is_demanded(column, table.columns.get(name))]
    return f"{table.name}.{min(demanded)} has to be filled in" if demanded else ""


def _is_demanded(column: ReflectedColumn, ours: Column[Any] | None) -> bool:
    """Return whether the column requires a value that this version may not supply: then its INSERTs would fail."""
    if column["nullable"]:
        return False
    if ours is not None:
        return bool(ours.nullable)
    return column["default"] is None and not column.get("computed") and not column.get("identity")
