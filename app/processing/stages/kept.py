"""SQL over what stages have made. Every function runs inside the caller's transaction."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, String, bindparam, delete, func, select, update

from app.database import Prepared, UTCDateTime, as_json, insert_or_replace, json_text, now
from app.documents.models import documents
from app.files import repository as files_repository
from app.files.models import File, files
from app.processing.stages.models import stage_results

EVER = datetime(2000, 1, 1, tzinfo=UTC)


def key_of(owner_id: UUID, upstream: str, name: str, version: str, params: Mapping[str, Any]) -> str:
    """The key of what a stage makes. `upstream` is the key of the stage before it, or the SHA-256 of the document.

    It is the owner's: nobody learns from it what others have.
    """
    canonical = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{owner_id.hex}\n{upstream}\n{name}\n{version}\n{canonical}".encode()).hexdigest()


def key_of_job(key: str, job_id: UUID) -> str:
    """The key for one job only, of what depends on more than the key says."""
    return hashlib.sha256(f"{key}\n{job_id.hex}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stage has made: the JSON of its data, or a file that has it compressed. `length` is the bytes of JSON."""

    key: str
    data: str | None
    file: File | None
    length: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """What is in a row."""
        file = File(*(row[f"file_{name}"] for name in File.__slots__)) if row["file_id"] else None
        return cls(row["key"], None if file else row["data"], file, row["length"])


_FIND = Prepared(
    select(
        stage_results.c.key,
        stage_results.c.length,
        json_text(stage_results.c.data).label("data"),
        *(column.label(f"file_{column.name}") for column in files.c),
    )
    .outerjoin_from(stage_results, files, stage_results.c.file_id == files.c.id)
    .where(
        stage_results.c.key.in_([bindparam("key"), bindparam("key_of_job")]),
        stage_results.c.created_at >= bindparam("since", type_=UTCDateTime),
    )
)
_KEEP = insert_or_replace(
    stage_results, created_at=now(), last_used_at=now(), data=as_json(bindparam("json", type_=String))
)
_USE = Prepared(update(stage_results).where(stage_results.c.key == bindparam("used")).values(last_used_at=now()))


def find(conn: Connection, key: str, job_id: UUID, since: datetime = EVER) -> Kept | None:
    """What was made under the key, for all or for this job, at `since` or later."""
    found = _FIND.all(conn, {"key": key, "key_of_job": key_of_job(key, job_id), "since": since})
    return Kept.of(found[0]) if found else None


def keep(conn: Connection, made: Kept, owner_id: UUID, input_sha256: str) -> None:
    """Keep what a stage made of a document of its owner, in the place of what it made before."""
    if made.file:
        files_repository.add(conn, made.file)
    values = {
        "key": made.key,
        "owner_id": owner_id,
        "input_sha256": input_sha256,
        "json": made.data or "{}",
        "file_id": made.file and made.file.id,
        "size": made.file.size if made.file else made.length,
        "length": made.length,
    }
    _KEEP[conn.dialect.name].count(conn, values)


def use(conn: Connection, kept: Kept) -> None:
    """Note that it was of use just now."""
    _USE.count(conn, {"used": kept.key})


def forget(conn: Connection, kept: Kept) -> None:
    """Delete what turned out to be of no use, unless it is another by now."""
    same = stage_results.c.file_id == (kept.file and kept.file.id)
    conn.execute(delete(stage_results).where(stage_results.c.key == kept.key, same))


_OTHERS = documents.alias("others")
_OF_LAST_DOCUMENT = Prepared(
    select(files.c.key)
    .join(stage_results, stage_results.c.file_id == files.c.id)
    .join(
        documents,
        (documents.c.owner_id == stage_results.c.owner_id) & (documents.c.sha256 == stage_results.c.input_sha256),
    )
    .where(
        documents.c.id == bindparam("document"),
        ~select(_OTHERS.c.id)
        .where(
            _OTHERS.c.owner_id == documents.c.owner_id,
            _OTHERS.c.sha256 == documents.c.sha256,
            _OTHERS.c.id != documents.c.id,
        )
        .exists(),
    )
)


def keys(conn: Connection, document_id: UUID) -> list[str]:
    """The keys of the files that go with a document: none while its owner has another of the same content."""
    return [row["key"] for row in _OF_LAST_DOCUMENT.all(conn, {"document": document_id})]


def keys_of_owner(conn: Connection, owner_id: UUID) -> list[str]:
    """The keys of the files of all that is kept for an owner."""
    joined = select(files.c.key).join(stage_results, stage_results.c.file_id == files.c.id)
    return list(conn.scalars(joined.where(stage_results.c.owner_id == owner_id)))


def total_size(conn: Connection) -> int:
    """Bytes of all that is kept."""
    return int(conn.scalar(select(func.coalesce(func.sum(stage_results.c.size), 0))) or 0)
