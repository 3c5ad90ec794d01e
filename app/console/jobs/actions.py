"""What forms do with one job: each goes on to the page that it was on."""

from datetime import timedelta
from uuid import UUID

from fastapi import BackgroundTasks, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.errors import AppError, Conflict
from app.jobs.schemas import Job
from app.operators.bulk import BulkJobs
from app.operators.dependencies import Operating
from app.operators.schemas import RerunRequest
from app.processing.routes import JobId, Service

router = pages_for(Scope.DOCUMENTS_PROCESS)

_INSTANT = timedelta(microseconds=1)


@router.post("/jobs/{job_id}/cancel")
async def cancel(request: Request, job_id: JobId, principal: CurrentPrincipal, service: Service) -> Response:
    """Cancel a job."""
    fields = await forms.fields_of(request)
    job = await service.cancel(principal, job_id)
    return pages.to(forms.there(fields, f"/documents/{job.document_id}"))


@router.post("/jobs/{job_id}/retry")
async def retry(
    *,
    request: Request,
    job_id: JobId,
    principal: CurrentPrincipal,
    service: Service,
    operators: Operating,
    background: BackgroundTasks,
) -> Response:
    """Do the work of a job again, whose failure is the last word on its document."""
    fields = await forms.fields_of(request)
    job = await service.job(principal, job_id)
    background.add_task(operators.bulk.wake, await _again(operators.bulk, principal, job))
    return pages.to(forms.there(fields, f"/documents/{job.document_id}"))


async def _again(bulk: BulkJobs, principal: Principal, job: Job) -> UUID:
    """The new job. Raises Conflict if there is nothing to do again, and what its owner would get to see."""
    only = {
        "owner_id": principal.owner_id,
        "document_id": job.document_id,
        "created_after": (job.created_at - _INSTANT).isoformat(),
        "created_before": (job.created_at + _INSTANT).isoformat(),
    }
    answer, started = await bulk.rerun(RerunRequest.model_validate({"filter": only, "confirm": 1}), principal)
    for code in answer.skipped:
        raise AppError.by_code[code]
    if not started:
        raise Conflict("Only a job that has failed can be retried, and that its document had no other after.")
    return started[0]
