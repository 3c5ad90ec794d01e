"""The list of documents, and the trash."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.dependencies import Service
from app.documents.lifecycle import Status
from app.documents.schemas import DocumentPage, Filters, Selection, Sort
from app.files.models import ContentType
from app.processing.routes import Service as Processing
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.DOCUMENTS_READ)

_CHOICES: dict[str, Any] = {"statuses": list(Status), "content_types": list(ContentType), "sorts": list(Sort)}


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
    values = _shown(request, found) | _CHOICES | {"offered": processing.offered.items, "selection": _selection(filters)}
    return pages.page(request, "documents/list.html", filters=filters, **values)


def _shown(request: Request, found: DocumentPage) -> dict[str, Any]:
    """The documents, and the queries of this list's first page and of the next one."""
    given = {name: value for name, value in request.query_params.items() if name != "cursor"}
    return {
        "documents": found.items,
        "first": urlencode(given),
        "more": urlencode(given | {"cursor": found.next_cursor}) if found.next_cursor else None,
        "cursor": "cursor" in request.query_params,
        "narrowed": _narrowed(given),
    }


def _selection(filters: Filters) -> dict[str, Any]:
    """The filters by which documents may be processed."""
    return filters.model_dump(mode="json", exclude_none=True, include=set(Selection.model_fields))


def _narrowed(given: dict[str, Any]) -> bool:
    """Whether there are filters beside those that are always shown."""
    return bool(given.keys() - {"status", "q", "folder", "tag", "sort", "trashed", "limit"})
