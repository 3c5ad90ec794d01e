"""The list of documents, and the trash."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages, paging
from app.console.frame.route import pages_for
from app.documents.dependencies import Service
from app.documents.lifecycle import Status
from app.documents.schemas import DocumentPage, Filters, Selection, Sort
from app.files.models import ContentType
from app.processing.routes import Service as Processing
from app.processing.service import ProcessingService
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.DOCUMENTS_READ)

_CHOICES: dict[str, Any] = {"statuses": list(Status), "content_types": list(ContentType), "sorts": list(Sort)}
_MORE = ("content_type", "created_after", "created_before", "held", "parent_id", "sha256")  # shown if one is given


@router.get("/documents")
async def find(
    *,
    request: Request,
    principal: CurrentPrincipal,
    service: Service,
    processing: Processing,
    filters: Annotated[Filters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The documents that match every filter."""
    found = await service.find(principal, filters, limit, cursor)
    shown = _shown(filters, found, processing)
    return pages.page(request, "documents/list.html", **shown, **paging.links(request, found.next_cursor))


def _shown(filters: Filters, found: DocumentPage, processing: ProcessingService) -> dict[str, Any]:
    """What the page shows: `selection` are the filters by which documents may be processed."""
    return _CHOICES | {
        "filters": filters,
        "narrowed": any(getattr(filters, name) for name in _MORE),
        "selection": filters.model_dump(mode="json", exclude_none=True, include=set(Selection.model_fields)),
        "documents": found.items,
        "offered": processing.offered.items,
    }
