"""Schema migrations (alembic)."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

HEAD = "0002"


def upgrade(conn: Connection) -> None:
    """Bring the schema behind `conn` to HEAD, each revision in a transaction of its own.

    The caller holds a lock that keeps other starters out.
    """
    with conn.begin():
        current = conn.scalar(text("SELECT version_num FROM alembic_version")) if _is_versioned(conn) else None
    if current == HEAD:
        return
    # Only a start that has something to migrate pays for the import.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def _is_versioned(conn: Connection) -> bool:
    return inspect(conn).has_table("alembic_version")
