"""/documents/{id}/results/{processor}/files: what a processor has made besides its result."""

from functools import partial
from typing import Annotated

from fastapi import Path, Request, Response
from fastapi.responses import StreamingResponse

from app import errors
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents import content
from app.documents.dependencies import DocumentId, FileNumber
from app.processing import describe
from app.processing.routes import ProcessorName, Sending, Service, query_of
from app.processing.schemas import ResultFileList
from app.web.body import json_response
from app.web.describe import accepts, raises
from app.web.fields import LINE

reading = authenticated_router(Scope.DOCUMENTS_READ, tags=["processing"])

FileName = Annotated[str, Path(max_length=100, pattern=LINE)]


@reading.get(
    "/documents/{document_id}/results/{processor}/files",
    operation_id="listResultFiles",
    response_model=ResultFileList,
    responses=raises(errors.ValidationFailed, errors.NotFound),
)
async def list_result_files(
    document_id: DocumentId,
    processor: ProcessorName,
    principal: CurrentPrincipal,
    service: Service,
    number: FileNumber = None,
) -> Response:
    """The files that belong to the last good result of one processor, in the order in which it made them."""
    found = await service.files(principal, document_id, processor, number)
    return json_response(ResultFileList.of(document_id, processor, found, query_of(number)))


@reading.get(
    "/documents/{document_id}/results/{processor}/files/{name}",
    operation_id="getResultFile",
    response_class=StreamingResponse,
    responses={**describe.FILE, **raises(*describe.SENDING_FILE)},
    openapi_extra=accepts(**describe.FILE_REQUEST),
)
async def get_result_file(
    *,
    request: Request,
    document_id: DocumentId,
    processor: ProcessorName,
    name: FileName,
    principal: CurrentPrincipal,
    service: Service,
    answers: Sending,
    number: FileNumber = None,
) -> Response:
    """One of them."""
    found = await service.file(principal, document_id, processor, name, number)
    return await content.respond(request, found.file, found.name, partial(answers.send, principal, found.file))
