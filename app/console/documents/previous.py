"""The files that a document has and had: a page for each, and what forms do with them."""

from typing import Annotated

from fastapi import BackgroundTasks, Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.documents import requests, results
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.documents.dependencies import DocumentId, Service as Documents
from app.documents.file_versions.routes import Number, Replace, Versions
from app.files.multipart import Form, boundary_of
from app.processing.routes import Sending, Service as Processing
from app.web.body import declared_length

reading = pages_for(Scope.DOCUMENTS_READ)
writing = pages_for(Scope.DOCUMENTS_WRITE)
deleting = pages_for(Scope.DOCUMENTS_DELETE)


@reading.get("/documents/{document_id}/files/{number}")
async def show(
    *,
    request: Request,
    document_id: DocumentId,
    number: Number,
    principal: CurrentPrincipal,
    documents: Documents,
    service: Versions,
    processing: Processing,
    answers: Sending,
) -> Response:
    """One of them, and what was made of it."""
    document = await documents.get(principal, document_id)
    file = await service.get(principal, document_id, number)
    found = await results.of_document(processing, answers, principal, document_id, number)
    return await pages.long_page(request, "documents/file.html", document=document, file=file, results=found)


@writing.post("/documents/{document_id}/replace")
async def replace(
    *,
    request: Request,
    document_id: DocumentId,
    version: Annotated[int, Query(ge=1, lt=2**31)],
    principal: CurrentPrincipal,
    service: Replace,
    background: BackgroundTasks,
) -> Response:
    """Give a document that has this version another file."""
    form = Form(boundary_of(request, service.max_upload_bytes), service.max_upload_bytes)
    at, body, length = frozenset({version}), request.stream(), declared_length(request)
    done = await service.receive(principal, document_id, at, form, body, key=None, declared=length)
    background.add_task(service.removal.discarded, done.keys)
    return pages.to(f"/documents/{document_id}", "replaced")


@writing.post("/documents/{document_id}/files/{number}/restore")
async def restore(
    *,
    request: Request,
    document_id: DocumentId,
    number: Number,
    principal: CurrentPrincipal,
    service: Replace,
    background: BackgroundTasks,
) -> Response:
    """Give the document a copy of a file that it had before."""
    shown = forms.versions(await forms.fields_of(request))
    done = await service.restore(principal, document_id, shown, number)
    background.add_task(service.removal.discarded, done.keys)
    return pages.to(f"/documents/{document_id}", "restored")


@writing.post("/documents/{document_id}/files/{number}/edit")
async def edit(
    request: Request, document_id: DocumentId, number: Number, principal: CurrentPrincipal, service: Versions
) -> Response:
    """Change what is stated about a file."""
    changes = requests.file_changes(await forms.fields_of(request))
    await service.edit(principal, document_id, number, changes)
    return pages.to(f"/documents/{document_id}/files/{number}", "saved")


@deleting.post("/documents/{document_id}/files/{number}/delete")
async def delete(
    document_id: DocumentId, number: Number, principal: CurrentPrincipal, service: Versions, background: BackgroundTasks
) -> Response:
    """Delete a file that the document had before, with its results."""
    background.add_task(service.removal.discarded, await service.remove(principal, document_id, number))
    return pages.to(f"/documents/{document_id}#files", "removed")
