"""All SQL on files. Functions run inside the caller's transaction."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from uuid import UUID

from sqlalchemy import Connection, Float, bindparam, false, func, insert, select, update

from app.database import Database, Prepared, delete_expired, now
from app.files.models import File, files, key_of

MARGIN = 60.0  # seconds; longer than a transaction that publishes a reserved file
KEPT_SECONDS = 30 * 86400.0  # that a discarded file is remembered: a presigned URL may bring it back for up to a week


class Overdue(Exception):
    """A file waited so long to be published that it may have been swept."""


_ADD = Prepared(insert(files).values(created_at=now()))
_RESERVE = insert(files).values(
    created_at=now(), discarded_at=now(bindparam("kept", type_=Float)), content_type="", size=0
)
_PUBLISH = (
    update(files)
    .where(files.c.id == bindparam("file"), files.c.discarded_at > now(MARGIN))
    .values(content_type=bindparam("kind"), size=bindparam("bytes"), sha256=bindparam("hash"), discarded_at=None)
)


def add(conn: Connection, file: File) -> None:
    """Insert a file that is stored, or announced."""
    _ADD.count(conn, asdict(file))


def reserve(conn: Connection, new: Collection[UUID], seconds: float) -> None:
    """Insert files that are going to be stored, and published within so many seconds and MARGIN.

    After these they count as discarded. Without rows, those of a killed process would be unknown files, and perhaps too
    many to be swept.
    """
    kept = seconds + 2 * MARGIN
    conn.execute(_RESERVE, [{"id": each, "key": key_of(each), "kept": kept} for each in new])


def publish(conn: Connection, stored: Collection[File]) -> None:
    """Record what reserved files turned out to be: from now on something refers to them. Raises Overdue."""
    if not stored:
        return
    about = [{"file": file.id, "kind": file.content_type, "bytes": file.size, "hash": file.sha256} for file in stored]
    conn.execute(_PUBLISH, about)
    published = (files.c.id.in_([file.id for file in stored]), files.c.discarded_at.is_(None))
    if conn.scalar(select(func.count()).where(*published)) != len(stored):
        raise Overdue


def verify(conn: Connection, file: File) -> None:
    """Record what an announced file turned out to be."""
    values = {name: value for name, value in asdict(file).items() if name not in {"id", "key"}}
    conn.execute(update(files).where(files.c.id == file.id).values(**values))


def discard(conn: Connection, file_ids: Collection[UUID]) -> list[str]:
    """Mark files that nothing refers to any more. Returns their keys: the bytes may be removed."""
    discarded = update(files).where(files.c.id.in_(file_ids)).values(discarded_at=now()).returning(files.c.key)
    return list(conn.scalars(discarded))


def known(conn: Connection, keys: Sequence[str]) -> dict[str, bool]:
    """Those of the keys that this database has a file for, each with whether it was discarded."""
    discarded = func.coalesce(files.c.discarded_at <= now(), false())
    query = select(files.c.key, discarded).where(files.c.key.in_(keys))
    return dict(conn.execute(query).all())


async def forget_discarded(db: Database, grace: float) -> None:
    """Delete the rows of files that were discarded long ago, however many, and never before two sweeps have seen them.

    `grace`: the age in seconds at which sweeps look at a file, and their interval.
    """
    await delete_expired(db, files.c.discarded_at, kept=max(KEPT_SECONDS, 3 * grace))
