"""Deleting documents and taking them back: DELETE and restore of one, and the trash as a whole."""

from typing import Annotated

from fastapi import BackgroundTasks, Query, Request, Response

from app import errors
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents.deletion import Deletion
from app.documents.dependencies import DocumentId
from app.documents.routes import ETAG, response
from app.documents.schemas import Document
from app.web.conditional import expected_versions
from app.web.dependencies import service
from app.web.describe import accepts, raises

writing = authenticated_router(Scope.DOCUMENTS_WRITE, prefix="/documents", tags=["documents"])
deleting = authenticated_router(Scope.DOCUMENTS_DELETE, tags=["documents"])

Service = Annotated[Deletion, service("deletion")]
Permanent = Annotated[bool, Query(description="For good at once, also out of the trash.")]


@deleting.delete(
    "/documents/{document_id}",
    operation_id="deleteDocument",
    status_code=204,
    responses=raises(
        errors.ValidationFailed,
        errors.NotFound,
        errors.PreconditionFailed,
        errors.DocumentProcessing,
        errors.OnHold,
        errors.TooBusy,
        errors.StorageFull,
    ),
    openapi_extra=accepts(If_Match="Versions that may be deleted: 412 if the document is at another one."),
)
async def delete_document(
    *,
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    background: BackgroundTasks,
    permanent: Permanent = False,
) -> Response:
    """Move a document to the trash, from where it can be restored until the service deletes it for good.

    With it go its jobs, results and files. With `If-Match`, only if it is still at that version.
    """
    keys = await service.delete(principal, document_id, expected_versions(request), permanent=permanent)
    background.add_task(service.remove_files, keys)
    return Response(status_code=204)


@writing.post(
    "/{document_id}/restore",
    operation_id="restoreDocument",
    response_model=Document,
    responses={
        200: {"headers": ETAG},
        **raises(errors.ValidationFailed, errors.NotFound, errors.DocumentPurged, errors.TooBusy, errors.StorageFull),
    },
)
async def restore_document(document_id: DocumentId, principal: CurrentPrincipal, service: Service) -> Response:
    """Take a document out of the trash, as it was. Safe to repeat."""
    return response(await service.restore(principal, document_id))


@deleting.delete(
    "/trash",
    operation_id="emptyTrash",
    status_code=204,
    responses=raises(errors.TooBusy, errors.StorageFull),
)
async def empty_trash(principal: CurrentPrincipal, service: Service, background: BackgroundTasks) -> Response:
    """Delete for good all that is in the trash, but for what is on hold. Safe to repeat."""
    background.add_task(service.remove_files, await service.empty_trash(principal))
    return Response(status_code=204)
