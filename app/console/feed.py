"""The feed of the console: tells its pages when to look again."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame.route import pages_for
from app.documents.feed import HEADERS, MEDIA_TYPE, Feed
from app.web.dependencies import service

router = pages_for(Scope.DOCUMENTS_READ)
operators = pages_for(Scope.OPERATOR, "/operators")

_Feed = Annotated[Feed, service("feed")]


@router.get("/feed")
@operators.get("/feed")
async def feed(principal: CurrentPrincipal, service: _Feed) -> Response:
    """Server-sent events `changed` and `beat`, without data: see `Feed.hints`."""
    return StreamingResponse(await service.hints(principal), headers=HEADERS, media_type=MEDIA_TYPE)
