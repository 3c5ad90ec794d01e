"""Repairs what loses nothing: it counts anew, and says of documents that nothing works on them, or that their file is
gone. No row and no file is ever deleted."""

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from app.check import usage
from app.check.content import CONTENT
from app.check.files import MISSING, SIZE
from app.check.findings import Finding
from app.check.states import PROCESSING_WITHOUT_JOB
from app.database import Database
from app.documents import repository as documents
from app.documents.lifecycle import SOURCES, Status
from app.documents.models import documents as table
from app.events.failure import Failure
from app.files.orphans import Found
from app.jobs import repository as jobs

_DAMAGED = {SIZE, CONTENT}
BAD = {MISSING} | _DAMAGED
"""The codes of files that are not as they were stored."""
REPAIRED = {usage.CODE, PROCESSING_WITHOUT_JOB} | BAD
"""The codes of which `repair` says something."""
MOST = 10_000  # findings that are repaired at once

_JOB_LOST = Failure(code="job-lost", detail="The job was lost. Process the document again.")
_FILE_MISSING = Failure(code="file-missing", detail="The stored file is missing.")


class Repair(NamedTuple):
    """Whether something was repaired, and how, or why not."""

    done: bool
    what: str


async def repair(db: Database, findings: list[Finding], *, files: int) -> AsyncIterator[tuple[Finding, Repair]]:
    """Repair what was found, and yield what was done about what. `files`: how many there are in all.

    If very many are missing, their storage is rather not the right one, and their documents are left alone.
    """
    missing = Found(files, sum(each.code == MISSING for each in findings))
    for finding in findings:
        if finding.code == MISSING and missing.suspicious:
            done = Repair(done=False, what=f"{missing.unknown} of {files} files are missing: look at the storage first")
        else:
            done = await _repair(db, finding)
        yield finding, done


async def _repair(db: Database, finding: Finding) -> Repair:
    if finding.code == usage.CODE:
        assert finding.owner_id
        counted = await db.write(partial(usage.recount, owner_id=finding.owner_id), alone_with=finding.owner_id)
        return Repair(counted, "counted anew" if counted else "it is right by now")
    if finding.code in _DAMAGED:
        return Repair(done=False, what="bring the file back from a backup, under its key")
    if finding.document_id is None:
        return Repair(done=False, what="the file is no document's")
    failed = await db.write(partial(_fail, document_id=finding.document_id, finding=finding))
    return Repair(failed, "the document is FAILED now" if failed else "the document's status does not allow it")


def _fail(conn: Connection, document_id: UUID, finding: Finding) -> bool:
    """Make a document FAILED whose job is lost; or, while it waits to be processed, whose file is."""
    document = documents.of_any(conn, document_id, locked=True)
    if document is None or document.status not in SOURCES[Status.FAILED]:
        return False
    error, job_id = _FILE_MISSING, None
    if finding.code == PROCESSING_WITHOUT_JOB:
        error, job_id = _JOB_LOST, document.job_id
        job = jobs.get(conn, job_id) if job_id else None
        still = document.status is Status.PROCESSING and not (job and job.state.live)
    else:
        here = _is_live(conn, document_id) and documents.file_of(conn, document_id).key == finding.file
        still = document.status is not Status.PROCESSING and here
    return still and bool(documents.move(conn, document_id, document.status, Status.FAILED, job_id=job_id, error=error))


def _is_live(conn: Connection, document_id: UUID) -> bool:
    """Whether a document is not in the trash, where it stays as it was."""
    live = (table.c.id == document_id, table.c.deleted_at.is_(None))
    return conn.execute(select(table.c.id).where(*live)).one_or_none() is not None
