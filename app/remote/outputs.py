"""Files that workers elsewhere have sent, until their jobs end. Functions run inside the caller's transaction.

A file is sent under a fence, and only what was sent under the last one is published. The rest is not referred to any
more; its reservation ends, and a sweep removes it, if nobody does so before.
"""

from collections.abc import Collection
from typing import NamedTuple, Self
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    Uuid,
    bindparam,
    delete,
    select,
)

from app.database import Database, Prepared, UTCDateTime, delete_expired, insert_or_replace, metadata, now
from app.documents.schemas import StatedMetadata
from app.files import repository as files
from app.files.models import File, key_of
from app.processing.sink import OutputFile
from app.remote.tokens import Claim

remote_outputs = Table(
    "remote_outputs",
    metadata,
    # No foreign key: to add one would lock the table of jobs. What is left of a job expires.
    Column("job_id", Uuid, primary_key=True),
    Column("fence", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("file_id", Uuid, nullable=False),
    Column("name", String(255), nullable=False),
    Column("is_document", Boolean, nullable=False),
    Column("content_type", String(100), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
)

_OF_CLAIM = (remote_outputs.c.job_id == bindparam("job"), remote_outputs.c.fence == bindparam("claim"))
_FIND = Prepared(select(remote_outputs).where(*_OF_CLAIM).order_by(remote_outputs.c.number))
_REPLACED = Prepared(select(remote_outputs.c.file_id).where(*_OF_CLAIM, remote_outputs.c.number == bindparam("nth")))
_STORE = insert_or_replace(remote_outputs, expires_at=now(bindparam("kept", type_=Float)))
_FORGET = Prepared(
    delete(remote_outputs)
    .where(remote_outputs.c.job_id == bindparam("job"), remote_outputs.c.fence <= bindparam("claim"))
    .returning(remote_outputs.c.file_id)
)


class Staged(NamedTuple):
    """A file that was sent, by the number that its worker has given it."""

    number: int
    file: File
    name: str
    is_document: bool

    @classmethod
    def of(cls, number: int, made: OutputFile) -> Self:
        """The file that a sink has stored."""
        return cls(number, made.file, made.name, made.metadata is not None)

    @property
    def output(self) -> OutputFile:
        """What a sink counts it as."""
        return OutputFile(self.file, self.name, StatedMetadata() if self.is_document else None)


def names(conn: Connection, claim: Claim, number: int) -> set[str]:
    """The names of files of the result that were sent under other numbers."""
    return {each.name for each in find(conn, claim) if not each.is_document and each.number != number}


def find(conn: Connection, claim: Claim) -> list[Staged]:
    """What was sent under a claim, by number."""
    found = _FIND.all(conn, {"job": claim.job_id, "claim": claim.fence})
    return [
        Staged(
            row["number"],
            File(row["file_id"], key_of(row["file_id"]), row["content_type"], row["size"], row["sha256"]),
            row["name"],
            row["is_document"],
        )
        for row in found
    ]


def stage(conn: Connection, claim: Claim, staged: Staged, seconds: float) -> list[str]:
    """Record a file for so many seconds, in the place of one of the same number. Returns the keys of what may be
    removed."""
    here = {"job": claim.job_id, "claim": claim.fence, "nth": staged.number}
    replaced = _REPLACED.one(conn, here)
    row = {
        "job_id": claim.job_id,
        "fence": claim.fence,
        "number": staged.number,
        "file_id": staged.file.id,
        "name": staged.name,
        "is_document": staged.is_document,
        "content_type": staged.file.content_type,
        "size": staged.file.size,
        "sha256": staged.file.sha256,
        "kept": seconds,
    }
    _STORE[conn.dialect.name].count(conn, row)
    return files.discard(conn, [replaced["file_id"]]) if replaced else []


def forget(conn: Connection, job_id: UUID, fence: int, published: Collection[UUID] = ()) -> list[str]:
    """Forget what was sent for a job up to this fence. Returns the keys of what may be removed: all but what was
    published."""
    left = {row["file_id"] for row in _FORGET.all(conn, {"job": job_id, "claim": fence})}.difference(published)
    return files.discard(conn, left) if left else []


async def forget_expired(db: Database) -> None:
    """Forget what was sent so long ago that it cannot be published, however much it is."""
    await delete_expired(db, remote_outputs.c.expires_at)
