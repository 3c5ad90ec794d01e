"""SQL over the files of results. Every function runs inside the caller's transaction.

With a `number`, those of results of the file of this number that the document had before.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, Table, bindparam, insert, select

from app.database import Prepared
from app.files.models import files
from app.jobs.models import Job
from app.processing.models import ResultFile, previous_result_files, result_files
from app.processing.sink import OutputFile

_ADD = Prepared(insert(result_files))


def _of_result(table: Table) -> Select[Any]:
    return (
        select(table.c.name, *files.c)
        .join(files, files.c.id == table.c.file_id)
        .where(table.c.document_id == bindparam("document"), table.c.processor == bindparam("made_by"))
        .order_by(table.c.number)
    )


_ALL = Prepared(_of_result(result_files))
_ONE = Prepared(_of_result(result_files).where(result_files.c.name == bindparam("named")))
_OF_FILE = previous_result_files.c.file_number == bindparam("nth")
_PREVIOUS = Prepared(_of_result(previous_result_files).where(_OF_FILE))


def add(conn: Connection, job: Job, made: Sequence[OutputFile]) -> None:
    """Add the files of a result that was published just now. Those of the one before have gone with it."""
    for number, each in enumerate(made):
        of_result = {"document_id": job.document_id, "processor": job.processor, "owner_id": job.owner_id}
        file = {"name": each.name, "number": number, "file_id": each.file.id, "size": each.file.size}
        _ADD.count(conn, of_result | file)


def of_result(conn: Connection, document_id: UUID, processor: str, *, number: int | None = None) -> list[ResultFile]:
    """The files of the last good result of a processor, in the order in which they were made."""
    result = {"document": document_id, "made_by": processor}
    found = _ALL.all(conn, result) if number is None else _PREVIOUS.all(conn, result | {"nth": number})
    return [ResultFile.of(row) for row in found]


def named(
    conn: Connection, document_id: UUID, processor: str, name: str, *, number: int | None = None
) -> ResultFile | None:
    """One of them by its name."""
    if number is not None:
        files_of = of_result(conn, document_id, processor, number=number)
        return next((each for each in files_of if each.name == name), None)
    row = _ONE.one(conn, {"document": document_id, "made_by": processor, "named": name})
    return ResultFile.of(row) if row else None
