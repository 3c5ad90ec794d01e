"""SQL that moves the results of a document's file along with it, when that is replaced. Every function runs inside the
caller's transaction."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, Uuid, bindparam, delete, insert, select, union_all, update

from app.database import Prepared, json_text, without_index
from app.documents.models import documents, previous_files
from app.files.models import files
from app.jobs.models import JobState, jobs
from app.processing.models import previous_result_files, previous_results, result_files, results

_DOCUMENT = bindparam("document", type_=Uuid)


def _copy(source: Table, target: Table, **others: Any) -> Prepared:
    """The statement that copies the rows of a document's current file to those of a previous one. `others` are columns
    that are no copies."""
    copied: list[Any] = [others[each] if each in others else source.c[each] for each in target.c.keys()]  # noqa: SIM118
    return Prepared(
        insert(target).from_select(target.c.keys(), select(*copied).where(source.c.document_id == _DOCUMENT))
    )


_OWNER = select(documents.c.owner_id).where(documents.c.id == _DOCUMENT).scalar_subquery()
_NUMBER = select(documents.c.file_number).where(documents.c.id == _DOCUMENT).scalar_subquery()
_COPY_RESULTS = _copy(results, previous_results, file_number=_NUMBER, owner_id=_OWNER)
_COPY_FILES = _copy(result_files, previous_result_files, file_number=_NUMBER)
# The triggers of revisions 0013 and 0021 no longer count a file that a result has lost. They discard it only with the
# row; those of `result_files` are always discarded, and taken back here.
_RELEASE = Prepared(update(results).where(results.c.document_id == _DOCUMENT).values(file_id=None, size=None))
_DELETE = Prepared(delete(results).where(results.c.document_id == _DOCUMENT))
_TAKE_BACK = Prepared(
    update(files)
    .where(
        files.c.id.in_(
            select(previous_result_files.c.file_id).where(
                previous_result_files.c.document_id == _DOCUMENT, previous_result_files.c.file_number == _NUMBER
            )
        )
    )
    .values(discarded_at=None)
)


def put_aside(conn: Connection, document_id: UUID) -> None:
    """Make the results of a document's current file those of a previous one, whose row is there."""
    document = {"document": document_id}
    if _COPY_RESULTS.count(conn, document) == 0:
        return
    has_files = _COPY_FILES.count(conn, document) > 0
    _RELEASE.count(conn, document)
    _DELETE.count(conn, document)
    if has_files:
        _TAKE_BACK.count(conn, document)


_HAD_RESULT = Prepared(
    select(jobs.c.id)
    .where(
        jobs.c.document_id == _DOCUMENT,
        without_index(jobs.c.state) == JobState.SUCCEEDED,
        previous_files.c.document_id == _DOCUMENT,
        previous_files.c.number == bindparam("nth"),
        files.c.id == previous_files.c.file_id,
        json_text(jobs.c.args).contains(files.c.key),
    )
    .limit(1)
)


def had_result(conn: Connection, document_id: UUID, number: int) -> bool:
    """Return whether a job has made a result of a previous file. It may be gone."""
    return _HAD_RESULT.one(conn, {"document": document_id, "nth": number}) is not None


_NUMBERS = {
    previous_files: previous_files.c.number,
    previous_results: previous_results.c.file_number,
    previous_result_files: previous_result_files.c.file_number,
}
_KEYS = {table: select(files.c.key).join(table, table.c.file_id == files.c.id) for table in _NUMBERS}


def keys(conn: Connection, document_id: UUID, numbers: Collection[int] | None = None) -> list[str]:
    """The keys of a document's previous files, or of those that have these numbers, and of what was made of them."""
    found = []
    for table, number in _NUMBERS.items():
        of_document = _KEYS[table].where(table.c.document_id == document_id)
        found.append(of_document if numbers is None else of_document.where(number.in_(numbers)))
    return list(conn.scalars(union_all(*found)))


def keys_of_owner(conn: Connection, owner_id: UUID) -> list[str]:
    """The keys of all previous files of an owner, and of what was made of them."""
    theirs = documents.c.owner_id == owner_id
    found = (_KEYS[table].join(documents, documents.c.id == table.c.document_id).where(theirs) for table in _NUMBERS)
    return list(conn.scalars(union_all(*found)))
