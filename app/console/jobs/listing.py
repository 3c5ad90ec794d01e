"""The list of jobs. Those that gave up are a part of it."""

from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages, paging
from app.console.frame.route import pages_for
from app.documents.dependencies import Service as Documents
from app.documents.schemas import Document
from app.jobs.models import JobState
from app.processing.routes import Service as Processing
from app.processing.schemas import JobFilters, JobPage
from app.processing.service import ProcessingService
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.DOCUMENTS_READ)


@router.get("/jobs")
async def find(
    *,
    request: Request,
    principal: CurrentPrincipal,
    processing: Processing,
    documents: Documents,
    filters: Annotated[JobFilters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The jobs that match every filter, the latest first."""
    found = await processing.jobs(principal, filters, limit, cursor)
    named = await documents.some(principal, {job.document_id for job in found.items if job.document_id})
    shown = _shown(filters, found, named, processing)
    return pages.page(request, "jobs/list.html", **shown, **paging.links(request, found.next_cursor))


def _shown(
    filters: JobFilters, found: JobPage, named: dict[UUID, Document], processing: ProcessingService
) -> dict[str, Any]:
    """What the page shows: `chosen` is the query of the pages about all that match."""
    return {
        "filters": filters,
        "chosen": urlencode({name: str(value) for name, value in filters if value is not None}),
        "jobs": found.items,
        "documents": named,
        "states": list(JobState),
        "offered": processing.offered.items,
    }
