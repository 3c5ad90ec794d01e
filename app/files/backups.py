"""While a backup is made, no process removes the bytes of a file: the snapshot of the database may refer to it.

Whoever removes a file has marked it as discarded before, and asks then. Whoever makes a backup says so before the
snapshot. So either the remover sees the backup, or the snapshot sees that the file is discarded.
"""

from sqlalchemy import Connection, exists, select

from app.database import insert_or_replace, now, unix_time
from app.upkeep import chores

LEASE = 60.0  # seconds after which a backup whose process died holds nobody up

_PREFIX = "backup:"
_LAST = "last-backup"  # the row that says when it was made
_IS_BACKUP = chores.c.name.startswith(_PREFIX, autoescape=True)
_SET = insert_or_replace(chores, until=now(LEASE))
_NOTED = insert_or_replace(chores, until=now())
_UNDER_WAY = select(exists().where(_IS_BACKUP, chores.c.until > now()))


def announce(conn: Connection, backup_id: str) -> None:
    """Have files kept from now on, for LEASE. Forgets the backups of processes that died."""
    conn.execute(chores.delete().where(_IS_BACKUP, chores.c.until <= now()))
    _SET[conn.dialect.name].count(conn, {"name": _PREFIX + backup_id})


def end(conn: Connection, backup_id: str) -> None:
    """Have files removed again, unless another backup is made."""
    conn.execute(chores.delete().where(chores.c.name == _PREFIX + backup_id))


def forget(conn: Connection) -> None:
    """In a database that was restored: forget the backup that it was copied by."""
    conn.execute(chores.delete().where(_IS_BACKUP))


def note(conn: Connection) -> None:
    """A backup is complete."""
    _NOTED[conn.dialect.name].count(conn, {"name": _LAST})


def last(conn: Connection) -> float | None:
    """When the last backup was complete, in seconds since 1970; None if none ever was."""
    moment: float | None = conn.scalar(select(unix_time(chores.c.until)).where(chores.c.name == _LAST))
    return moment


def under_way(conn: Connection) -> bool:
    """Whether a backup is being made."""
    return bool(conn.scalar(_UNDER_WAY))
