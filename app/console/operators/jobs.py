"""Jobs of all accounts: the list, each one, and cancelling it."""

from typing import Annotated

from fastapi import Query, Request, Response

from app.audit.dependencies import Noted
from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages, paging
from app.console.frame.route import pages_for
from app.jobs.models import JobState
from app.operators.dependencies import Operating
from app.operators.schemas import JobsFilters
from app.processing.routes import JobId
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.OPERATOR, "/operators/jobs")


@router.get("", operation_id="listAllJobs")
async def find(
    *,
    request: Request,
    operators: Operating,
    noted: Noted,
    filters: Annotated[JobsFilters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The jobs that match every filter, newest first."""
    found = await operators.jobs.find(filters, limit, cursor)
    of_document = found.items[0].owner_id if filters.document_id and found.items else None
    await noted(dict(filters), filters.owner_id or of_document)
    shown = paging.links(request, found.next_cursor)
    return pages.page(request, "operators/jobs.html", jobs=found.items, filters=filters, states=list(JobState), **shown)


@router.get("/{job_id}", operation_id="getAnyJob")
async def show(request: Request, job_id: JobId, operators: Operating, noted: Noted) -> Response:
    """One job."""
    job = await operators.jobs.get(job_id)
    await noted({"job_id": job_id}, job.owner_id)
    return pages.page(request, "operators/job.html", job=job)


@router.post("/{job_id}/cancel")
async def cancel(job_id: JobId, principal: CurrentPrincipal, operators: Operating) -> Response:
    """Cancel it, as its owner would."""
    await operators.jobs.cancel(principal, job_id)
    return pages.to(f"/operators/jobs/{job_id}", "cancelled")
