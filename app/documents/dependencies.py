"""The documents service and a document's id, as annotated parameters."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from app.documents.service import DocumentService
from app.web.dependencies import bound, service

Service = Annotated[DocumentService, service("documents")]
DocumentId = Annotated[UUID, bound("document_id")]
FileNumber = Annotated[
    int | None,
    Query(alias="file", ge=1, lt=2**31, description="The number of a previous file; left out: the current one."),
]
