"""Schema migrations (alembic)."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

HEAD = "0001"


def upgrade(conn: Connection) -> None:
    """Bring the schema behind `conn` to HEAD, each revision in a transaction of its own.

    The caller holds a lock that keeps other starters out.
    """
    with conn.begin():
        current = revision(conn)
    if current == HEAD:
        return
    # Only a start that has something to migrate pays for the import.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def revision(conn: Connection) -> str | None:
    """What the schema was brought to; None for a database that holds none."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    found: str | None = conn.scalar(text("SELECT version_num FROM alembic_version"))
    return found
