"""/documents/{id}/hold: operators forbid to remove a document, for a reason."""

from fastapi import Response

from app import errors
from app.auth.dependencies import authenticated_router
from app.auth.principal import Scope
from app.documents.dependencies import DocumentId
from app.documents.schemas import Document
from app.operators.dependencies import Operating
from app.operators.schemas import HoldRequest
from app.web.body import json_response
from app.web.describe import raises

router = authenticated_router(Scope.OPERATOR, prefix="/documents", tags=["operators"])


@router.put(
    "/{document_id}/hold",
    operation_id="holdDocument",
    response_model=Document,
    responses=raises(errors.NotFound, body=True),
)
async def hold_document(document_id: DocumentId, body: HoldRequest, operators: Operating) -> Response:
    """Have nobody remove the document, whoever owns it: neither its owner nor upkeep, in the trash or out of it.

    What would remove it, or a file that it had before, is refused with `on-hold` until the hold ends.
    """
    return json_response(await operators.documents.hold(document_id, body.reason))


@router.delete(
    "/{document_id}/hold",
    operation_id="releaseDocument",
    status_code=204,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def release_document(document_id: DocumentId, operators: Operating) -> Response:
    """End the hold. Safe to repeat."""
    await operators.documents.release(document_id)
    return Response(status_code=204)
