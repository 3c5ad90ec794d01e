"""SQL over results: the last good one of each processor. Every function runs inside the caller's transaction.

With a `number`, those of the file of this number that the document had before.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    select,
    true,
    union_all,
)

from app.database import Prepared, UTCDateTime, as_json, insert_or_replace, json_text, now
from app.documents.models import documents
from app.errors import OnHold
from app.files import repository as files_repository
from app.files.models import File, files
from app.jobs.schemas import result_url
from app.processing.models import previous_results, result_files, results
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

    def listed(self, query: str = "") -> bytes:
        """The JSON of a ListedResult. The query belongs to its address."""
        head, tail = self.around
        url = json.dumps(result_url(self.provenance.document_id, self.provenance.processor) + query)
        return b"".join((head, self.data or b"null", tail[:-1], f',"size":{self.size},"url":{url}}}'.encode()))


_NUMBER = (
    select(documents.c.file_number)
    .where(documents.c.id == results.c.document_id)
    .correlate(results)
    .scalar_subquery()
    .label("file_number")
)


def _columns(table: Table) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = [table.c[name] for name in Provenance.model_fields]
    # Not as the row says: the release before writes none into it.
    return [_NUMBER if each is results.c.file_number else each for each in columns]


class _Statements:
    """What is asked of a table of results: the `latest` of a document, the `one` of a processor, `all` of them."""

    def __init__(self, table: Table, of_file: ColumnElement[bool]) -> None:
        data = json_text(table.c.data)
        length = func.length(data)  # characters; those that revision 0007 wrote are bytes, too
        latest_first = (table.c.created_at.desc(), table.c.job_id.desc())
        stored = (column.label(f"file_{column.name}") for column in files.c)
        kept = (
            select(*_columns(table), table.c.created_at, table.c.size, *stored)
            .outerjoin_from(table, files, table.c.file_id == files.c.id)
            .where(table.c.document_id == bindparam("document"), of_file)
        )
        whole = kept.add_columns(data.label("data"))
        self.latest = Prepared(whole.order_by(*latest_first).limit(1))
        self.one = Prepared(whole.where(table.c.processor == bindparam("name")))
        short = case((length <= INLINE, data))
        self.all = Prepared(kept.add_columns(short.label("data"), length.label("length")).order_by(*latest_first))


_CURRENT = _Statements(results, true())
_PREVIOUS = _Statements(previous_results, previous_results.c.file_number == bindparam("nth"))
_OF_DOCUMENT = results.c.document_id == bindparam("document")
_OF_PROCESSOR = results.c.processor == bindparam("name")
_MADE_BY = Prepared(select(*_columns(results)).where(_OF_DOCUMENT, _OF_PROCESSOR))
_FILES = select(files.c.key).join(results, results.c.file_id == files.c.id)
_MORE_FILES = select(files.c.key).join(result_files, result_files.c.file_id == files.c.id)
_KEYS = Prepared(
    union_all(_FILES.where(_OF_DOCUMENT), _MORE_FILES.where(result_files.c.document_id == bindparam("document")))
)


def latest(conn: Connection, document_id: UUID, *, number: int | None = None) -> StoredResult | None:
    """The result that was published last, whichever processor made it."""
    statements, of_file = _of(number)
    row = statements.latest.one(conn, {"document": document_id, **of_file})
    return StoredResult.of(row) if row else None


def of_processor(
    conn: Connection, document_id: UUID, processor: str, *, number: int | None = None
) -> StoredResult | None:
    """The last good result of one processor."""
    statements, of_file = _of(number)
    row = statements.one.one(conn, {"document": document_id, "name": processor, **of_file})
    return StoredResult.of(row) if row else None


def of_document(conn: Connection, document_id: UUID, *, number: int | None = None) -> list[StoredResult]:
    """The last good result of each processor, the latest first; of large ones not the data."""
    statements, of_file = _of(number)
    return [StoredResult.of(row) for row in statements.all.all(conn, {"document": document_id, **of_file})]


def _of(number: int | None) -> tuple[_Statements, dict[str, int]]:
    """The statements over the results of the current file, or of a previous one, and what they need to find that."""
    return (_CURRENT, {}) if number is None else (_PREVIOUS, {"nth": number})


def provenance(conn: Connection, document_id: UUID, processor: str) -> Provenance | None:
    """What the last good result of one processor was made by, and of."""
    row = _MADE_BY.one(conn, {"document": document_id, "name": processor})
    return Provenance.model_validate(row) if row else None


def made_any(conn: Connection, document_id: UUID, processors: Sequence[str]) -> bool:
    """Return whether the document has a result of one of these processors."""
    made = (results.c.document_id == document_id, results.c.processor.in_(processors))
    return bool(conn.scalar(select(exists().where(*made))))


def keys(conn: Connection, document_id: UUID) -> list[str]:
    """The keys of the files of a document's results."""
    return [row["key"] for row in _KEYS.all(conn, {"document": document_id})]


def keys_of_owner(conn: Connection, owner_id: UUID) -> list[str]:
    """The keys of the files of all results of an owner."""
    theirs = documents.c.owner_id == owner_id
    of_results = _FILES.join(documents, documents.c.id == results.c.document_id).where(theirs)
    more = _MORE_FILES.join(documents, documents.c.id == result_files.c.document_id).where(theirs)
    return list(conn.scalars(union_all(of_results, more)))


# Not the column itself: in the INSERT, it would be that of any result.
_ITS_DOCUMENT = literal_column("document_results.document_id", Uuid())
_IS_HELD = exists().where(documents.c.id == _ITS_DOCUMENT, documents.c.hold.is_not(None))
_PUBLISH = insert_or_replace(
    results,
    only_if=~_IS_HELD,  # whoever holds a document holds what was made of it
    created_at=func.coalesce(bindparam("answered_at", type_=UTCDateTime), now()),
    data=as_json(bindparam("json", type_=String)),
)


def publish(conn: Connection, made: Made, grace: float) -> None:
    """Put a result in the place of its processor's last one.

    `grace`: seconds after which a file that nothing refers to may be swept. Raises Overdue, and OnHold if there is a
    last one that must not be removed.
    """
    output = made.output
    values = dict(made.provenance) | {"json": "{}", "answered_at": made.created_at, "file_id": None, "size": None}
    if isinstance(output, Answer):
        require_kept(output, grace)
        files_repository.add(conn, output.file)
        values |= {"answered_at": output.created_at, "file_id": output.file.id, "size": output.size}
    else:
        values["json"] = output
    if not _PUBLISH[conn.dialect.name].count(conn, values):
        raise OnHold


def require_kept(stored: Answer, grace: float) -> None:
    """Raise Overdue if the file may have been swept as an orphan: the process was paused, or its clock jumped."""
    if time.time() - stored.stored_at > grace / 2:
        raise files_repository.Overdue
