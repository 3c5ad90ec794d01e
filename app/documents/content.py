"""A stored file as a response: whole, the range that was asked for, or 304."""

from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.files.models import File
from app.files.names import disposition
from app.web.body import is_head
from app.web.conditional import Span, requested_span, unchanged

Send = Callable[[Span], Awaitable[AsyncIterator[bytes]]]
"""Returns a span of a file, in chunks."""


async def respond(request: Request, file: File, filename: str, send: Send) -> Response:
    """The response to a request for a file. Raises RangeNotSatisfiable, and what `send` raises."""
    headers = _headers(file, filename)
    if unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    span = requested_span(request, file.size, headers["ETag"])
    headers |= span.headers
    if is_head(request):
        return Response(None, span.status, headers, file.content_type)
    return StreamingResponse(await send(span), span.status, headers, file.content_type)


def _headers(file: File, filename: str) -> dict[str, str]:
    """Headers that keep browsers from displaying, sniffing or running a file of users."""
    return {
        "ETag": f'"{file.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(filename),
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
