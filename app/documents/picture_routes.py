"""/documents/{id}/pages: what the pages of a PDF look like."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request, Response

from app import errors
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents import describe
from app.documents.dependencies import DocumentId
from app.documents.pictures import Pictures, Wanted
from app.web.dependencies import service
from app.web.describe import accepts, header, raises

router = authenticated_router(Scope.DOCUMENTS_READ, prefix="/documents", tags=["documents"])

Service = Annotated[Pictures, service("pictures")]

_ETAG = {"ETag": header("The file, the page and the width.", f'"{"0" * 64}-1-800-1"')}


PageNumber = Annotated[int, Path(ge=1, lt=2**31, description="Of the page, counted from 1.")]


def _wanted(
    number: PageNumber,
    width: Annotated[int, Query(ge=64, le=1600, description="In pixels. Of a page that is tall it may be less.")] = 800,
) -> Wanted:
    return Wanted(number, width)


WantedPicture = Annotated[Wanted, Depends(_wanted)]


@router.get(
    "/{document_id}/pages/{number}.png",
    operation_id="getPagePicture",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "headers": _ETAG, **describe.PICTURE},
        304: {"description": "Unchanged.", "headers": _ETAG},
        **raises(
            errors.ValidationFailed,
            errors.NotFound,
            errors.PageNotFound,
            errors.UploadIncomplete,
            errors.NoPictures,
            errors.PictureFailed,
            errors.TooBusy,
            errors.FileMissing,
            errors.StorageUnavailable,
            errors.StorageFull,
        ),
    },
    openapi_extra=accepts(If_None_Match="ETags that the client has: 304 if the picture has one of them."),
)
async def get_page_picture(
    request: Request, document_id: DocumentId, wanted: WantedPicture, principal: CurrentPrincipal, service: Service
) -> Response:
    """A picture of a page of a PDF, with its annotations and what is filled in on its forms.

    It is at most four times as tall as wide, and has some 4 million pixels at the most.
    """
    return await service.respond(request, principal, document_id, wanted)
