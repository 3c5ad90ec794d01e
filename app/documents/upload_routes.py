"""Direct uploads: announce, complete, and the PUT of the file where the storage has no presigned URLs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents import describe
from app.documents.dependencies import DocumentId
from app.documents.schemas import Document
from app.documents.upload_schemas import NewUpload, Upload
from app.documents.uploads import UNSTATED, Sent, UploadService
from app.idempotency import IdempotencyKey
from app.web.body import json_response, media_type
from app.web.dependencies import service
from app.web.describe import header, links, raises
from app.web.route import Route

router = authenticated_router(Scope.DOCUMENTS_WRITE, prefix="/documents", tags=["direct uploads"])


class _SignedRoute(Route):
    """The signature in its query is checked by the service; what else is there changes nothing."""

    strict_query = False


public = APIRouter(prefix="/uploads", tags=["direct uploads"], route_class=_SignedRoute)

Service = Annotated[UploadService, service("uploads")]
Expires = Annotated[int, Query(ge=0, lt=2**53)]
Signature = Annotated[str, Query(max_length=128)]

_FINDING = (errors.ValidationFailed, errors.NotFound)
_RECEIVING = (
    errors.InvalidUploadUrl,
    errors.RequestTimeout,
    errors.LengthRequired,
    errors.UnsupportedMediaType,
    errors.TooBusy,
)
_COMPARING = (errors.AlreadyStored, errors.SizeMismatch, errors.ContentTypeMismatch, errors.Sha256Mismatch)
_ANNOUNCING = (
    errors.StorageQuotaExceeded,
    errors.DocumentQuotaExceeded,
    errors.TooManyUploads,
    errors.StorageUnavailable,
)
_STORING = (errors.DatabaseUnavailable, errors.StorageUnavailable, errors.StorageFull)
_FILE = {
    "required": True,
    "description": "The file. Its Content-Type may also be the one that was announced.",
    "content": {UNSTATED: {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(
    "/initiate-upload",
    operation_id="initiateUpload",
    status_code=201,
    response_model=Upload,
    responses={
        201: {
            "headers": {**describe.LOCATION, **idempotency.HEADERS},
            "links": links("completeUpload", "getDocument", document_id="$response.body#/document_id"),
        },
        **raises(*_ANNOUNCING, body=True, keyed=True),
    },
)
async def initiate_upload(
    request: Request, body: NewUpload, principal: CurrentPrincipal, service: Service, key: IdempotencyKey
) -> Response:
    """Announce a file. The response says where to PUT it; the document is INITIATED until the upload is completed."""
    answer = await service.initiate(principal, body, str(request.base_url), key)
    return answer.response()


@router.api_route("/initiate-upload", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def refuse_other_methods() -> None:
    """Answer 405: without this route, `initiate-upload` would be taken for a document's id."""
    raise HTTPException(405)


@router.post(
    "/{document_id}/complete-upload",
    operation_id="completeUpload",
    response_model=Document,
    responses={
        200: {"headers": {"ETag": header("The document's version.", '"2"')}, "links": describe.LINKS},
        **raises(*_FINDING, errors.UploadMissing, errors.UploadRejected, errors.TooBusy, *_STORING),
    },
)
async def complete_upload(document_id: DocumentId, principal: CurrentPrincipal, service: Service) -> Response:
    """Verify the size, SHA-256 and structure of the file that was sent, and make the document UPLOADED.

    Safe to repeat. A rejected file is removed, and its upload has ended: announce another.
    """
    document = await service.complete(principal, document_id)
    return json_response(document, headers={"ETag": document.etag})


@public.put(
    "/{document_id}",
    operation_id="putUpload",
    response_class=Response,
    responses={
        200: {"description": "The file has arrived: complete the upload."},
        **raises(*_FINDING, *_RECEIVING, *_COMPARING, *_STORING, errors.UploadRejected, authenticated=False),
    },
    openapi_extra={"requestBody": _FILE},
)
async def put_upload(
    request: Request, document_id: DocumentId, expires: Expires, signature: Signature, service: Service
) -> Response:
    """Send an announced file to the upload URL that the announcement returned. No other URL is valid."""
    length = request.headers.get("content-length", "")
    sent = Sent(int(length[:18]) if length.isdecimal() else None, media_type(request))
    await service.receive(document_id, expires, signature, sent, request.stream())
    return Response()
