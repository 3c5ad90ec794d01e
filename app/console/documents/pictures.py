"""What the pages of a PDF look like."""

from textwrap import wrap
from typing import Annotated

from fastapi import Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.dependencies import DocumentId
from app.documents.picture_routes import PageNumber, Service, WantedPicture
from app.errors import PageNotFound, PictureFailed

router = pages_for(Scope.DOCUMENTS_READ)

_SHOWN = 12
_LINE = 25  # characters


@router.get("/documents/{document_id}/pages")
async def show_some(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    first: Annotated[int, Query(alias="page", ge=1, lt=2**31)] = 1,
) -> Response:
    """Some pages, from one on."""
    document, count = await service.page_count(principal, document_id, first)
    numbers = range(first, min(first + _SHOWN, count + 1))
    return pages.page(request, "documents/pages.html", document=document, count=count, numbers=numbers, step=_SHOWN)


@router.get("/documents/{document_id}/pages/{number}.png")
async def get_picture(
    request: Request, document_id: DocumentId, wanted: WantedPicture, principal: CurrentPrincipal, service: Service
) -> Response:
    """A picture of one page, or of the reason why there is none."""
    try:
        return await service.respond(request, principal, document_id, wanted)
    except (PageNotFound, PictureFailed) as error:
        return pages.drawing("documents/no_picture.svg", lines=wrap(f"No picture: {error.detail}", _LINE))


@router.get("/documents/{document_id}/pages/{number}")
async def show_one(
    request: Request, document_id: DocumentId, number: PageNumber, principal: CurrentPrincipal, service: Service
) -> Response:
    """One page, large."""
    document, count = await service.page_count(principal, document_id, number)
    return pages.page(request, "documents/page.html", document=document, count=count, number=number)
