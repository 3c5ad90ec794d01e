"""The documents service, as an annotated parameter."""

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Request

from app.documents.service import DocumentService


def get_service(request: Request) -> DocumentService:
    service: DocumentService = request.app.state.documents
    return service


def _bound(document_id: UUID) -> UUID:
    structlog.contextvars.bind_contextvars(document_id=str(document_id))
    return document_id


Service = Annotated[DocumentService, Depends(get_service)]
DocumentId = Annotated[UUID, Depends(_bound)]
