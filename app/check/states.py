"""Documents and jobs whose states contradict each other, and what should have been removed long ago."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, case, exists, false, func, or_, select

from app.check.findings import Finding, Rows, examined
from app.database import Database, now
from app.documents import trash
from app.documents.lifecycle import Status
from app.documents.models import documents, previous_files
from app.events import events
from app.events.catalogue.documents import DocumentResultsExpired
from app.jobs.models import IS_HELD, IS_LIVE, jobs
from app.processing.models import results
from app.processing.queues import KIND
from app.settings import Settings

LATE = 86400.0  # seconds after which upkeep must have done what is due
LEASES = 10  # after which a lease that has expired must have been noticed

PROCESSING_WITHOUT_JOB = "processing-without-job"


async def of_documents(db: Database, settings: Settings) -> AsyncIterator[Finding]:
    """Documents that contradict their jobs, results or files, or are overdue to be removed."""
    async for finding in examined(db, _documents(settings), [documents.c.id], _judge_documents):
        yield finding


async def of_jobs(db: Database, settings: Settings) -> AsyncIterator[Finding]:
    """Live jobs that contradict their documents, or that nobody runs or rescues."""
    async for finding in examined(db, _jobs(settings), [jobs.c.id], _judge_jobs):
        yield finding


def _documents(settings: Settings) -> Select[Any]:
    at_work = and_(jobs.c.kind == KIND, IS_LIVE, jobs.c.document_id == documents.c.id)
    published = exists().where(results.c.document_id == documents.c.id, results.c.job_id == documents.c.job_id)
    expired = exists().where(events.c.document_id == documents.c.id, events.c.event == DocumentResultsExpired.name)
    lost = and_(documents.c.status == Status.COMPLETED, ~published, ~_may_have_expired(settings))
    highest = select(func.max(previous_files.c.number)).where(previous_files.c.document_id == documents.c.id)
    return select(
        documents.c.id,
        documents.c.owner_id,
        documents.c.status,
        documents.c.file_number,
        documents.c.deleted_at.is_not(None).label("trashed"),
        jobs.c.id.is_not(None).label("at_work"),
        case((lost, ~expired), else_=false()).label("lost"),
        highest.scalar_subquery().label("highest"),
        _is_overdue(settings).label("overdue"),
    ).select_from(documents.outerjoin(jobs, and_(jobs.c.id == documents.c.job_id, at_work)))


def _may_have_expired(settings: Settings) -> ColumnElement[bool]:
    """Whether results may have been deleted for their age, and the event of that, too."""
    ages = [seconds for seconds in (settings.result_ttl, settings.events_ttl) if seconds]
    return documents.c.updated_at <= now(-min(ages)) if ages else false()


def _is_overdue(settings: Settings) -> ColumnElement[bool]:
    """Whether a document is in the trash, or is not, for longer than it may be."""
    ways = [*trash.expiries(settings.retention_seconds), trash.purging(settings.trash_seconds)]
    return or_(*(way.due(LATE) for way in ways))


def _judge_documents(rows: Rows) -> list[Finding]:
    return [
        Finding(code, detail, row.id, row.owner_id)
        for row in rows
        for code, detail in _wrong_with_document(row).items()
    ]


def _wrong_with_document(row: Row[Any]) -> dict[str, str]:
    wrong = {}
    if row.status == Status.PROCESSING and not row.at_work:
        wrong[PROCESSING_WITHOUT_JOB] = "it is PROCESSING, and no job is at work on it"
    if row.lost:
        wrong["result-missing"] = "it is COMPLETED, and its latest job has no result"
    if row.highest is not None and row.highest >= row.file_number:
        wrong["file-number-wrong"] = f"its file has the number {row.file_number}, a previous one {row.highest}"
    if row.overdue and row.trashed:
        wrong["trash-overdue"] = "it should have been removed from the trash"
    elif row.overdue:
        wrong["expiry-overdue"] = "it has expired, and should be in the trash"
    return wrong


def _jobs(settings: Settings) -> Select[Any]:
    silent = and_(IS_HELD, jobs.c.locked_until <= now(-max(300.0, LEASES * settings.lease_seconds)))
    return select(
        jobs.c.id,
        jobs.c.kind,
        jobs.c.owner_id,
        jobs.c.document_id,
        IS_LIVE.label("live"),
        silent.label("silent"),
        documents.c.id.label("document"),
        documents.c.status,
        documents.c.deleted_at,
        (documents.c.job_id == jobs.c.id).label("latest"),
    ).select_from(jobs.outerjoin(documents, documents.c.id == jobs.c.document_id))


def _judge_jobs(rows: Rows) -> list[Finding]:
    live = [row for row in rows if row.live]
    return [
        Finding(code, f"job {row.id} {detail}", row.document_id, row.owner_id)
        for row in live
        for code, detail in _wrong_with_job(row).items()
    ]


def _wrong_with_job(row: Row[Any]) -> dict[str, str]:
    wrong = {}
    if row.kind == KIND and (reason := _contradiction(row)):
        wrong["job-without-processing"] = f"is not finished, and {reason}"
    if row.silent:
        wrong["lease-overdue"] = "is held by a worker that has been silent for long, and was not taken over"
    return wrong


def _contradiction(row: Row[Any]) -> str | None:
    if row.document is None:
        return "has no document"
    if row.deleted_at is not None:
        return "its document is in the trash"
    if row.status != Status.PROCESSING:
        return f"its document is {row.status}"
    return None if row.latest else "its document is at another job"
