"""SQL over the files of results. Every function runs inside the caller's transaction."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, bindparam, insert, select

from app.database import Prepared
from app.files.models import files
from app.jobs.models import Job
from app.processing.models import ResultFile, result_files
from app.processing.sink import OutputFile

_ADD = Prepared(insert(result_files))
_OF_RESULT = (
    select(result_files.c.name, *files.c)
    .join(files, files.c.id == result_files.c.file_id)
    .where(
        result_files.c.document_id == bindparam("document"),
        result_files.c.processor == bindparam("made_by"),
    )
)
_ALL = Prepared(_OF_RESULT.order_by(result_files.c.number))
_ONE = Prepared(_OF_RESULT.where(result_files.c.name == bindparam("named")))


def add(conn: Connection, job: Job, made: Sequence[OutputFile]) -> None:
    """Add the files of a result that was published just now. Those of the one before have gone with it."""
    for number, each in enumerate(made):
        of_result = {"document_id": job.document_id, "processor": job.processor, "owner_id": job.owner_id}
        file = {"name": each.name, "number": number, "file_id": each.file.id, "size": each.file.size}
        _ADD.count(conn, of_result | file)


def of_result(conn: Connection, document_id: UUID, processor: str) -> list[ResultFile]:
    """The files of the last good result of a processor, in the order in which they were made."""
    return [ResultFile.of(row) for row in _ALL.all(conn, {"document": document_id, "made_by": processor})]


def named(conn: Connection, document_id: UUID, processor: str, name: str) -> ResultFile | None:
    """One of them by its name."""
    row = _ONE.one(conn, {"document": document_id, "made_by": processor, "named": name})
    return ResultFile.of(row) if row else None
