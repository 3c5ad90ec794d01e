"""Schema migrations (alembic)."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

HEAD = "0001"


def upgrade(conn: Connection) -> None:
    """Bring the schema behind `conn` to HEAD, each revision in a transaction of its own.

    The caller holds a lock that keeps other starters out.
    """
    if is_current(conn):
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
        versioned = inspect(conn).has_table("alembic_version")
        return versioned and conn.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
