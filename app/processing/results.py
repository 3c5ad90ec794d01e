"""SQL over results: the last good one of each processor. Every function runs inside the caller's transaction."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, String, bindparam, case, func, select, union_all

from app.database import Prepared, UTCDateTime, as_json, insert_or_replace, json_text, now
from app.documents.models import documents
from app.files import repository as files_repository
from app.files.models import File, files
from app.jobs.schemas import result_url
from app.processing.models import result_files, results
from app.processing.output import INLINE, Answer
from app.processing.schemas import Provenance


@dataclass(frozen=True, slots=True)
class Made:
    """A result that is to be published: what it was made by, and the JSON of its data or a stored answer.

    `created_at`: None, when it is published, or as a stored answer says.
    """

    provenance: Provenance
    output: str | Answer
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as it is kept: the JSON of its `data`, or its whole answer in a `file`; in a list large ones have
    neither.

    `around` is what comes before and after the data in the answer, and `size` the bytes of all three.
    """

    provenance: Provenance
    around: tuple[bytes, bytes]
    data: bytes | None
    file: File | None
    size: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """The result in a row."""
        provenance = Provenance.model_validate(row)
        around = provenance.around(row["created_at"])
        if row["size"] is not None:
            file = File(*(row[f"file_{name}"] for name in File.__slots__))
            return cls(provenance, around, None, file, row["size"])
        data = row["data"] and row["data"].encode()
        length = len(data) if data else row["length"]
        return cls(provenance, around, data, None, sum(map(len, around)) + length)

    @property
    def listed(self) -> bytes:
        """The JSON of a ListedResult."""
        head, tail = self.around
        url = json.dumps(result_url(self.provenance.document_id, self.provenance.processor))
        return b"".join((head, self.data or b"null", tail[:-1], f',"size":{self.size},"url":{url}}}'.encode()))


_PROVENANCE = [results.c[name] for name in Provenance.model_fields]
_DATA = json_text(results.c.data)
_LENGTH = func.length(_DATA)  # characters; those that revision 0007 wrote are bytes, too
_OF_DOCUMENT = results.c.document_id == bindparam("document")
_OF_PROCESSOR = results.c.processor == bindparam("name")
_LATEST_FIRST = (results.c.created_at.desc(), results.c.job_id.desc())
_KEPT = (
    select(
        *_PROVENANCE, results.c.created_at, results.c.size, *(column.label(f"file_{column.name}") for column in files.c)
    )
    .outerjoin_from(results, files, results.c.file_id == files.c.id)
    .where(_OF_DOCUMENT)
)
_WHOLE = _KEPT.add_columns(_DATA.label("data"))
_LATEST = Prepared(_WHOLE.order_by(*_LATEST_FIRST).limit(1))
_ONE = Prepared(_WHOLE.where(_OF_PROCESSOR))
_SHORT = case((_LENGTH <= INLINE, _DATA))
_ALL = Prepared(_KEPT.add_columns(_SHORT.label("data"), _LENGTH.label("length")).order_by(*_LATEST_FIRST))
_MADE_BY = Prepared(select(*_PROVENANCE).where(_OF_DOCUMENT, _OF_PROCESSOR))
_FILES = select(files.c.key).join(results, results.c.file_id == files.c.id)
_MORE_FILES = select(files.c.key).join(result_files, result_files.c.file_id == files.c.id)
_KEYS = Prepared(
    union_all(_FILES.where(_OF_DOCUMENT), _MORE_FILES.where(result_files.c.document_id == bindparam("document")))
)


def latest(conn: Connection, document_id: UUID) -> StoredResult | None:
    """The result that was published last, whichever processor made it."""
    row = _LATEST.one(conn, {"document": document_id})
    return StoredResult.of(row) if row else None


def of_processor(conn: Connection, document_id: UUID, processor: str) -> StoredResult | None:
    """The last good result of one processor."""
    row = _ONE.one(conn, {"document": document_id, "name": processor})
    return StoredResult.of(row) if row else None


def of_document(conn: Connection, document_id: UUID) -> list[StoredResult]:
    """The last good result of each processor, the latest first; of large ones not the data."""
    return [StoredResult.of(row) for row in _ALL.all(conn, {"document": document_id})]


def provenance(conn: Connection, document_id: UUID, processor: str) -> Provenance | None:
    """What the last good result of one processor was made by, and of."""
    row = _MADE_BY.one(conn, {"document": document_id, "name": processor})
    return Provenance.model_validate(row) if row else None


def keys(conn: Connection, document_id: UUID) -> list[str]:
    """The keys of the files of a document's results."""
    return [row["key"] for row in _KEYS.all(conn, {"document": document_id})]


def keys_of_owner(conn: Connection, owner_id: UUID) -> list[str]:
    """The keys of the files of all results of an owner."""
    theirs = documents.c.owner_id == owner_id
    of_results = _FILES.join(documents, documents.c.id == results.c.document_id).where(theirs)
    more = _MORE_FILES.join(documents, documents.c.id == result_files.c.document_id).where(theirs)
    return list(conn.scalars(union_all(of_results, more)))


_PUBLISH = insert_or_replace(
    results,
    created_at=func.coalesce(bindparam("answered_at", type_=UTCDateTime), now()),
    data=as_json(bindparam("json", type_=String)),
)


def publish(conn: Connection, made: Made, grace: float) -> None:
    """Put a result in the place of its processor's last one.

    `grace`: seconds after which a file that nothing refers to may be swept. Raises Overdue.
    """
    output = made.output
    values = dict(made.provenance) | {"json": "{}", "answered_at": made.created_at, "file_id": None, "size": None}
    if isinstance(output, Answer):
        require_kept(output, grace)
        files_repository.add(conn, output.file)
        values |= {"answered_at": output.created_at, "file_id": output.file.id, "size": output.size}
    else:
        values["json"] = output
    _PUBLISH[conn.dialect.name].count(conn, values)


def require_kept(stored: Answer, grace: float) -> None:
    """Raise Overdue if the file may have been swept as an orphan: the process was paused, or its clock jumped."""
    if time.time() - stored.stored_at > grace / 2:
        raise files_repository.Overdue
