"""Jobs, each with the number of the file of its document that it reads.

The release before does not record it. Of its jobs it is the number of the file that has the key in their args.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection

from app.database import Database
from app.documents.file_versions import sql as file_versions
from app.jobs import listing
from app.jobs.listing import JobList, Listed
from app.jobs.models import Job


def numbered(conn: Connection, job: Job) -> Job:
    """Return the job with the number; without, if its file is gone."""
    return _all_numbered(conn, [job])[0]


async def find(db: Database, wanted: JobList, limit: int, cursor: str | None, *, count: bool) -> Listed:
    """Return a page of jobs with the numbers. Raises as `listing.find` does."""
    found = await listing.find(db, wanted, limit, cursor, counted=count)
    if any(lacks_number(job) for job in found.items):
        found = found._replace(items=await db.read(partial(_all_numbered, jobs=found.items)))
    return found


def lacks_number(job: Job) -> bool:
    """Return whether the release before has accepted it."""
    return "file_number" not in job.args


def _all_numbered(conn: Connection, jobs: Sequence[Job]) -> list[Job]:
    lacking = {job.args["file"]["key"]: job.document_id for job in jobs if lacks_number(job)}
    numbers = file_versions.numbers(conn, lacking) if lacking else {}
    return [_with(job, numbers.get(job.args["file"]["key"])) for job in jobs]


def _with(job: Job, number: int | None) -> Job:
    return job if number is None else replace(job, args={**job.args, "file_number": number})
