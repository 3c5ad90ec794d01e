"""What the pages of a PDF look like."""

from typing import Annotated

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.dependencies import DocumentId
from app.documents.picture_routes import Service, WantedPicture

router = pages_for(Scope.DOCUMENTS_READ)

_SHOWN = 12

FirstPage = Annotated[int, Query(alias="page", ge=1, lt=2**31)]


@router.get("/documents/{document_id}/pages")
async def show(
    request: Request, document_id: DocumentId, principal: CurrentPrincipal, service: Service, first: FirstPage = 1
) -> Response:
    """Some pages, from one on."""
    document, count = await service.page_count(principal, document_id)
    numbers = range(first, min(first + _SHOWN, count + 1))
    return pages.page(request, "documents/pages.html", document=document, count=count, numbers=numbers, step=_SHOWN)


@router.get("/documents/{document_id}/pages/{number}.png")
async def get_picture(
    request: Request, document_id: DocumentId, wanted: WantedPicture, principal: CurrentPrincipal, service: Service
) -> Response:
    """A picture of one page."""
    return await service.respond(request, principal, document_id, wanted)
