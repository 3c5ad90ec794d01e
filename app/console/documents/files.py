"""Files and results, through the session."""

from functools import partial

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame.route import pages_for
from app.documents import content
from app.documents.dependencies import DocumentId, FileNumber, Service
from app.processing.file_routes import FileName
from app.processing.routes import ProcessorName, Sending, Service as Processing

router = pages_for(Scope.DOCUMENTS_READ)


@router.get("/documents/{document_id}/content")
async def get_content(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    number: FileNumber = None,
) -> Response:
    """The file that the document has now, or one that it had before."""
    document, file = await service.stored(principal, document_id, number)
    send = partial(service.content, principal, document, file, number=number)
    return await content.respond(request, file, document.filename, send)


@router.get("/documents/{document_id}/results/{processor}")
async def get_result(
    *,
    request: Request,
    document_id: DocumentId,
    processor: ProcessorName,
    principal: CurrentPrincipal,
    service: Processing,
    answers: Sending,
    number: FileNumber = None,
) -> Response:
    """The last good result of one processor, as JSON."""
    return await answers.respond(request, principal, await service.result_of(principal, document_id, processor, number))


@router.get("/documents/{document_id}/results/{processor}/files/{name}")
async def get_result_file(
    *,
    request: Request,
    document_id: DocumentId,
    processor: ProcessorName,
    name: FileName,
    principal: CurrentPrincipal,
    service: Processing,
    answers: Sending,
    number: FileNumber = None,
) -> Response:
    """A file that belongs to it."""
    found = await service.file(principal, document_id, processor, name, number)
    return await content.respond(request, found.file, found.name, partial(answers.send, principal, found.file))
