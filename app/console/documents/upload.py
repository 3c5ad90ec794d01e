"""Uploading a file by a form."""

from fastapi import BackgroundTasks, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.forms import UploadForm
from app.console.frame.route import pages_for
from app.documents.dependencies import Service
from app.files.multipart import boundary_of
from app.processing.routes import Service as Processing
from app.web.body import declared_length

reading = pages_for(Scope.DOCUMENTS_READ)
writing = pages_for(Scope.DOCUMENTS_WRITE)


@reading.get("/upload")
async def ask(request: Request, service: Service, processing: Processing) -> Response:
    """The form."""
    offered = processing.offered.items
    return pages.page(request, "documents/upload.html", offered=offered, most=service.max_upload_bytes)


@writing.post("/documents")
async def upload(
    request: Request, principal: CurrentPrincipal, service: Service, background: BackgroundTasks
) -> Response:
    """Receive a file, and have it processed if that is asked for."""
    form = UploadForm(boundary_of(request, service.max_upload_bytes), service.max_upload_bytes)
    answer, job = await service.upload(principal, form, request.stream(), None, declared_length(request))
    if job:
        background.add_task(job.wake)
    return pages.to(answer.location)
