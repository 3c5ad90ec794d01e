"""What forms do with documents: each goes on to the page of the document, or to the list."""

from fastapi import BackgroundTasks, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.documents import params, requests
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.documents.dependencies import DocumentId, Service as Documents
from app.documents.trash_routes import Service as Deletion
from app.processing.routes import Service as Processing

writing = pages_for(Scope.DOCUMENTS_WRITE)
processing = pages_for(Scope.DOCUMENTS_PROCESS)
deleting = pages_for(Scope.DOCUMENTS_DELETE)


@writing.post("/documents/{document_id}/edit")
async def edit(request: Request, document_id: DocumentId, principal: CurrentPrincipal, service: Documents) -> Response:
    """Change what is stated about a document."""
    fields = await forms.fields_of(request)
    await service.edit(principal, document_id, forms.versions(fields), requests.metadata_changes(fields))
    return pages.to(f"/documents/{document_id}", "saved")


@writing.post("/documents/{document_id}/restore")
async def restore(document_id: DocumentId, principal: CurrentPrincipal, service: Deletion) -> Response:
    """Take a document out of the trash."""
    await service.restore(principal, document_id)
    return pages.to(f"/documents/{document_id}", "restored")


@processing.post("/documents/{document_id}/process")
async def process(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Processing,
    background: BackgroundTasks,
) -> Response:
    """Process a document."""
    fields = await forms.fields_of(request)
    asked = requests.process_request(fields, params.typed(service.offered.items, fields, "processor", "params"))
    _, job_id = await service.process(principal, document_id, asked, None)
    if job_id:
        background.add_task(service.wake, job_id)
    return pages.to(f"/documents/{document_id}", "accepted")


@deleting.post("/documents/{document_id}/delete")
async def delete(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Deletion,
    background: BackgroundTasks,
) -> Response:
    """Move a document to the trash, or delete it for good."""
    fields = await forms.fields_of(request)
    permanent = "permanent" in fields
    keys = await service.delete(principal, document_id, forms.versions(fields), permanent=permanent)
    background.add_task(service.remove_files, keys)
    return pages.to("/documents?trashed=true", "purged") if permanent else pages.to("/documents", "deleted")


@deleting.post("/trash/empty")
async def empty_trash(principal: CurrentPrincipal, service: Deletion, background: BackgroundTasks) -> Response:
    """Delete for good all that is in the trash."""
    background.add_task(service.remove_files, await service.empty_trash(principal))
    return pages.to("/documents?trashed=true", "purged")
