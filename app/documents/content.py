"""The file of a document as a response: whole, the range that was asked for, or 304."""

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.auth.principal import Principal
from app.documents.schemas import Document
from app.documents.service import DocumentService
from app.files.models import File
from app.files.names import disposition
from app.web.body import is_head
from app.web.conditional import requested_span, unchanged


async def respond(
    request: Request, service: DocumentService, principal: Principal, document: Document, file: File
) -> Response:
    """The response to a request of this principal. Raises RangeNotSatisfiable, NotFound, TooBusy, Unavailable."""
    headers = _headers(document)
    if unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    span = requested_span(request, file.size, headers["ETag"])
    headers |= span.headers
    if is_head(request):
        return Response(None, span.status, headers, file.content_type)
    chunks = await service.content(principal, document, file, span)
    return StreamingResponse(chunks, span.status, headers, file.content_type)


def _headers(document: Document) -> dict[str, str]:
    """Headers that keep browsers from displaying, sniffing or running an uploaded file."""
    return {
        "ETag": f'"{document.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(document.filename),
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
