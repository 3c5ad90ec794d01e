"""The audit trail: what happened to all accounts, as a page and as a file, and whether it is as it was written."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from app.audit.routes import Service
from app.audit.schemas import Filters
from app.audit.service import VERIFIED
from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import pages, paging
from app.console.frame.route import pages_for
from app.events.catalogue import CATALOGUE
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.AUDIT_READ, "/operators/audit")

_NDJSON = "application/x-ndjson"
_AS_FILE = {"Content-Disposition": 'attachment; filename="audit.ndjson"'}


@router.get("")
async def find(
    request: Request,
    service: Service,
    filters: Annotated[Filters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The events that match every filter, the latest first. That they were read is an event, too."""
    found = await service.find(filters, limit, cursor)
    shown = paging.links(request, found.next_cursor)
    return pages.page(
        request, "operators/audit.html", events=found.items, filters=filters, names=sorted(CATALOGUE), **shown
    )


@router.get("/export")
async def export(principal: CurrentPrincipal, service: Service, filters: Annotated[Filters, Query()]) -> Response:
    """All of them, the oldest first, as a file with a line of JSON each."""
    lines = await service.export(principal, filters)
    return StreamingResponse(lines, media_type=_NDJSON, headers=_AS_FILE)


@router.get("/verify")
async def verify(request: Request, service: Service) -> Response:
    """Whether the latest events are as they were written, and none is gone or came later."""
    return pages.page(request, "operators/verification.html", found=await service.verify(), most=VERIFIED)
