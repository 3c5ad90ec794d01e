"""/documents: upload, list, read, edit, content, timeline."""

from functools import partial
from typing import Annotated

from fastapi import BackgroundTasks, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents import content, describe
from app.documents.dependencies import DocumentId, FileNumber, Service
from app.documents.lifecycle import Status
from app.documents.schemas import Document, DocumentPage, Filters, MetadataChanges, UploadedDocument
from app.events import TimelinePage
from app.files.multipart import Form, boundary_of
from app.files.sniffing import DOCX, PDF
from app.idempotency import IdempotencyKey
from app.web.body import RETRY_AFTER, declared_length, json_response
from app.web.conditional import expected_versions, unchanged
from app.web.describe import accepts, header, raises
from app.web.pagination import Count, Cursor, Limit, page_response

writing = authenticated_router(Scope.DOCUMENTS_WRITE, prefix="/documents", tags=["documents"])
reading = authenticated_router(Scope.DOCUMENTS_READ, prefix="/documents", tags=["documents"])

ETAG = {"ETag": header("The document's version.", '"1"')}
_WHILE_PROCESSING = {"Retry-After": header("Seconds; only while PROCESSING.", "1")}
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"$ref": "#/components/schemas/UploadForm"},
                "encoding": {
                    "file": {"contentType": f"{PDF}, {DOCX}"},
                    "metadata": {"contentType": "application/json"},
                    "process": {"contentType": "text/plain"},
                    "process_params": {"contentType": "application/json"},
                },
            }
        },
    }
}


@writing.post(
    "",
    operation_id="uploadDocument",
    status_code=201,
    response_model=UploadedDocument,
    responses={
        201: {"headers": {**describe.LOCATION, **idempotency.HEADERS}, "links": describe.LINKS},
        **raises(
            *describe.RECEIVING,
            errors.DocumentQuotaExceeded,
            *describe.REFUSING,
            errors.RequestInProgress,
            errors.UnsafeArchive,
            errors.UnsupportedMediaType,
            errors.ValidationFailed,
            errors.UnknownProcessor,
            errors.UnsupportedContentType,
            errors.TooManyJobs,
            keyed=True,
        ),
    },
    openapi_extra=_UPLOAD_BODY,
)
async def upload(
    request: Request,
    principal: CurrentPrincipal,
    service: Service,
    key: IdempotencyKey,
    background: BackgroundTasks,
) -> Response:
    """Upload a PDF or DOCX. Its type is decided by its structure, whatever the client declares.

    With `process`, in its metadata or beside it, it is processed at once: document and job are accepted in one
    transaction.
    """
    form = Form(boundary_of(request, service.max_upload_bytes), service.max_upload_bytes)
    answer, job = await service.upload(principal, form, request.stream(), key, declared_length(request))
    if job:
        background.add_task(job.wake)
    return answer.response()


@reading.get(
    "",
    operation_id="listDocuments",
    response_model=DocumentPage,
    responses=raises(errors.ValidationFailed, errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy),
)
async def list_documents(
    *,
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[Filters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
    count: Count = False,
) -> Response:
    """The caller's documents that match every filter."""
    return page_response(await service.find(principal, filters, limit, cursor, count=count))


@reading.get(
    "/{document_id}",
    operation_id="getDocument",
    response_model=Document,
    responses={
        200: {"headers": {**ETAG, **_WHILE_PROCESSING}},
        304: {"description": "Unchanged since the version in If-None-Match.", "headers": ETAG},
        **raises(errors.ValidationFailed, errors.NotFound),
    },
    openapi_extra=accepts(If_None_Match="Versions that the client has: 304 if the document is at one of them."),
)
async def get_document(
    request: Request, document_id: DocumentId, principal: CurrentPrincipal, service: Service
) -> Response:
    """One document."""
    document = await service.get(principal, document_id)
    if unchanged(request, document.etag):
        return Response(status_code=304, headers=_headers(document))
    return response(document)


@reading.get(
    "/{document_id}/children",
    operation_id="listDocumentChildren",
    response_model=DocumentPage,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.InvalidCursor, errors.TooBusy),
)
async def list_children(
    *,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    limit: Limit = 20,
    cursor: Cursor = None,
    count: Count = False,
) -> Response:
    """The documents that were made of this one, in the order in which they were made.

    When this one is deleted, they stay: `GET /documents?parent_id=` lists them.
    """
    return page_response(await service.children(principal, document_id, limit, cursor, count=count))


@writing.patch(
    "/{document_id}",
    operation_id="editDocument",
    response_model=Document,
    responses={
        200: {"headers": ETAG},
        **raises(errors.ValidationFailed, errors.NotFound, errors.PreconditionFailed, body=True),
    },
    openapi_extra=accepts(If_Match="Versions that may be changed: 412 if the document is at another one."),
)
async def edit_document(
    request: Request, document_id: DocumentId, body: MetadataChanges, principal: CurrentPrincipal, service: Service
) -> Response:
    """Change metadata, by a merge patch (RFC 7396). With `If-Match`, only if the document is still at that version."""
    changes = body.model_dump(exclude_unset=True)
    return response(await service.edit(principal, document_id, expected_versions(request), changes))


@reading.get(
    "/{document_id}/content",
    operation_id="getDocumentContent",
    response_class=StreamingResponse,
    responses={**describe.CONTENT, **raises(*describe.SENDING)},
    openapi_extra=accepts(**describe.CONTENT_REQUEST),
)
async def get_content(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    number: FileNumber = None,
) -> Response:
    """The file as it was uploaded: the one that the document has now, or with `file` one that it had before."""
    document, file = await service.stored(principal, document_id, number)
    send = partial(service.content, principal, document, file, number=number)
    return await content.respond(request, file, document.filename, send)


@reading.get(
    "/{document_id}/timeline",
    operation_id="getDocumentTimeline",
    response_model=TimelinePage,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.InvalidCursor),
)
async def get_timeline(
    document_id: DocumentId, principal: CurrentPrincipal, service: Service, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Everything that happened to the document, oldest first."""
    return json_response(await service.timeline(principal, document_id, limit, cursor))


def response(document: Document) -> Response:
    """The response that shows a document as it is now."""
    return json_response(document, headers=_headers(document))


def _headers(document: Document) -> dict[str, str]:
    headers = {"ETag": document.etag, "Cache-Control": "private, no-cache"}
    return headers | RETRY_AFTER if document.status is Status.PROCESSING else headers
