"""What forms do with one job: each goes on to the page that it was on."""

from fastapi import BackgroundTasks, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.processing.routes import JobId, Service

router = pages_for(Scope.DOCUMENTS_PROCESS)


@router.post("/jobs/{job_id}/cancel")
async def cancel(request: Request, job_id: JobId, principal: CurrentPrincipal, service: Service) -> Response:
    """Cancel a job."""
    fields = await forms.fields_of(request)
    job = await service.cancel(principal, job_id)
    return pages.to(forms.there(fields, f"/documents/{job.document_id}"), "cancelled")


@router.post("/jobs/{job_id}/retry")
async def retry(
    request: Request, job_id: JobId, principal: CurrentPrincipal, service: Service, background: BackgroundTasks
) -> Response:
    """Do once more what a job was to do."""
    fields = await forms.fields_of(request)
    answer, again = await service.retry(principal, job_id)
    if again:
        background.add_task(service.wake, again)
    return pages.to(forms.there(fields, f"/documents/{answer.document_id}"), "accepted")
