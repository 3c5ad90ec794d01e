"""The list of documents, and the trash."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console import pages
from app.console.route import pages_for
from app.documents.dependencies import Service
from app.documents.lifecycle import Status
from app.documents.schemas import Filters, Sort
from app.files.models import ContentType
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.DOCUMENTS_READ)

_CHOICES: dict[str, Any] = {"statuses": list(Status), "content_types": list(ContentType), "sorts": list(Sort)}


@router.get("/documents")
async def find(
    *,
    request: Request,
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[Filters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The documents that match every filter."""
    found = await service.find(principal, filters, limit, cursor)
    given = {name: request.query_params[name] for name in request.query_params if name != "cursor"}
    more = urlencode(given | {"cursor": found.next_cursor}) if found.next_cursor else None
    values: dict[str, Any] = {
        "documents": found.items,
        "filters": filters,
        "more": more,
        "first": urlencode(given),
        "cursor": cursor,
    }
    return pages.page(request, "documents.html", narrowed=_narrowed(given), **_CHOICES, **values)


def _narrowed(given: dict[str, Any]) -> bool:
    """Whether there are filters beside those that are always shown."""
    return bool(given.keys() - {"status", "q", "folder", "tag", "sort", "trashed", "limit"})
