"""/events: what happens to the caller's documents, as it happens."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from app import errors
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents.feed import HEADERS, MEDIA_TYPE, Feed
from app.web.body import is_head
from app.web.dependencies import service
from app.web.describe import accepts, raises

router = authenticated_router(Scope.DOCUMENTS_READ, prefix="/events", tags=["documents"])

_NO_ID = "No message of yours has this id. It is what follows `id:`, not the `id` in the data. Start again without one."
_EXAMPLE = (
    'id: WyJldmVudHMiLDEsIjAi\nevent: job.queued\ndata: {"document_id":"01939f3e-5c00-7000-8000-000000000001"}\n\n'
)
_STREAM = {
    "description": "Messages with `id`, `event` and `data`, which is a DocumentEvent as JSON; now and then a comment.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
}


@router.get(
    "",
    operation_id="streamEvents",
    response_class=StreamingResponse,
    responses={
        200: _STREAM,
        **raises(errors.ValidationFailed, errors.InvalidCursor, errors.TooBusy, errors.ShuttingDown),
    },
    openapi_extra=accepts(Last_Event_ID="As `after`: browsers send it when they connect again."),
)
async def stream_events(
    request: Request,
    principal: CurrentPrincipal,
    feed: Annotated[Feed, service("feed")],
    after: Annotated[
        str | None, Query(max_length=2048, description="What followed `id:` in the last message received.")
    ] = None,
) -> Response:
    """Receive what happens to your documents, as server-sent events. Without `after`, from now on.

    The stream has no end, but may be cut at any time: connect again with the `id` of the last message, and none is
    missing.
    """
    if is_head(request):
        return Response(None, headers=HEADERS, media_type=MEDIA_TYPE)
    last = request.headers.get("last-event-id")
    try:
        stream = await feed.stream(principal, last or after)
    except errors.InvalidCursor:
        pointer = "/header/Last-Event-ID" if last else "/query/after"
        raise errors.InvalidCursor(_NO_ID, pointer=pointer) from None
    return StreamingResponse(stream, headers=HEADERS, media_type=MEDIA_TYPE)
