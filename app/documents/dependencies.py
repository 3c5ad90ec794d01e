"""The documents service and a document's id, as annotated parameters."""

from typing import Annotated
from uuid import UUID

from app.documents.service import DocumentService
from app.web.dependencies import bound, service

Service = Annotated[DocumentService, service("documents")]
DocumentId = Annotated[UUID, bound("document_id")]
