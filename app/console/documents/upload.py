"""Uploading a file by a form."""

from fastapi import BackgroundTasks, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.documents import params
from app.console.documents.params import ChosenAtUpload
from app.console.documents.upload_form import UploadForm
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.dependencies import Service
from app.files.multipart import boundary_of
from app.idempotency import IdempotencyKey
from app.processing.routes import Service as Processing
from app.web.body import declared_length

reading = pages_for(Scope.DOCUMENTS_READ)
writing = pages_for(Scope.DOCUMENTS_WRITE)


@reading.get("/upload")
async def ask(request: Request, service: Service, processing: Processing, process: ChosenAtUpload = None) -> Response:
    """The form."""
    choice = params.choice(processing.offered.items, process)
    return pages.page(request, "documents/upload.html", choice=choice, most=service.max_upload_bytes)


@writing.post("/documents")
async def upload(
    *,
    request: Request,
    principal: CurrentPrincipal,
    service: Service,
    processing: Processing,
    key: IdempotencyKey,
    background: BackgroundTasks,
) -> Response:
    """Receive a file, and have it processed if that is asked for. The script sends each file with a key."""
    most = service.max_upload_bytes
    form = UploadForm(boundary_of(request, most), most, processing.offered.items)
    answer, job = await service.upload(principal, form, request.stream(), key, declared_length(request))
    if job:
        background.add_task(job.wake)
    return pages.to(answer.location, "uploaded")
