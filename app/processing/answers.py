"""Results as responses: JSON or plain text, from their rows or streamed from their files."""

import zlib
from collections.abc import AsyncIterator, Iterable

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.auth.principal import Principal
from app.errors import NotAcceptable
from app.files.downloads import Downloads
from app.files.models import File
from app.files.stored import StoredFiles, damaged
from app.limiter import Threads
from app.processing.plain_text import text_of
from app.processing.results import StoredResult
from app.web.body import is_head
from app.web.conditional import Span, prefers_gzip, prefers_text, requested_span, unchanged

_PIECE = 32 * 1024  # bytes that are read, or decompressed, at once: a slow reader occupies some ten times as much
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_VARY = "Accept, Accept-Encoding"


class Answers:
    """Sends results. Large ones are downloads like any other."""

    def __init__(self, stored: StoredFiles, downloads: Downloads) -> None:
        self._stored = stored
        self._downloads = downloads
        self._threads = Threads(2, "answers", low_priority=True)

    async def respond(self, request: Request, principal: Principal, result: StoredResult) -> Response:
        """The response to a request for one result: the whole of it, the range that was asked for, its text, or 304.

        Raises RangeNotSatisfiable, NotAcceptable, TooBusy, NotFound, Unavailable,
        FileMissing, FileDamaged.
        """
        if prefers_text(request):
            return await self._as_text(request, principal, result)
        plain, compressed = (f'"{result.provenance.job_id}{suffix}"' for suffix in ("", "-gzip"))
        gzip = result.file is not None and prefers_gzip(request, compressed)
        etag = compressed if gzip else plain
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        headers |= {"Vary": _VARY}
        if unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        span = requested_span(request, result.file.size if result.file and gzip else result.size, etag)
        headers |= span.headers | ({"Content-Encoding": "gzip"} if gzip else {})
        if result.file is None:
            head, tail = result.around
            whole = head + (result.data or b"") + tail
            return Response(whole[span.start : span.start + span.length], span.status, headers, _JSON)
        if is_head(request):
            return Response(None, span.status, headers, _JSON)
        chunks = self._compressed(result.file, span) if gzip else self._decompressed(result.file, span)
        return StreamingResponse(await self._downloads.send(principal.owner_id, chunks), span.status, headers, _JSON)

    async def _as_text(self, request: Request, principal: Principal, result: StoredResult) -> Response:
        """The `text` of the data. Raises as `respond` does."""
        etag = f'"{result.provenance.job_id}-text"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": _VARY}
        if unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        if result.file is None:
            name, text = next(iter(orjson.loads(result.data or b"{}").items()), ("", None))
            if name != "text" or not isinstance(text, str):
                raise NotAcceptable
            return Response(text, 200, headers, _TEXT)
        if is_head(request):
            return Response(None, 200, headers, _TEXT)
        start = len(result.around[0])
        json = self._decompressed(result.file, Span(start, result.size - start, result.size))
        return StreamingResponse(await self._downloads.send(principal.owner_id, text_of(json)), 200, headers, _TEXT)

    async def beginning(self, result: StoredResult, most: int) -> str:
        """The beginning of the JSON of a result's data, of so many bytes at most. Raises NotFound, Unavailable,
        FileMissing, FileDamaged."""
        if result.file is None:
            return (result.data or b"")[:most].decode(errors="ignore")
        head, tail = result.around
        length = min(most, result.size - len(head) - len(tail))
        pieces = [piece async for piece in self._decompressed(result.file, Span(len(head), length, result.size))]
        return b"".join(pieces).decode(errors="ignore")

    async def send(self, principal: Principal, file: File, span: Span) -> AsyncIterator[bytes]:
        """Return a span of a file that belongs to a result, in chunks. Raises NotFound, TooBusy, Unavailable,
        FileMissing, FileDamaged."""
        return await self._downloads.send(principal.owner_id, self._stored.read(file, span.start, span.length))

    def _compressed(self, file: File, span: Span) -> AsyncIterator[bytes]:
        return self._stored.read(file, span.start, span.length, chunk=_PIECE)

    async def _decompressed(self, file: File, span: Span) -> AsyncIterator[bytes]:
        """Yield a span of what is compressed in the file."""
        decompress = zlib.decompressobj(wbits=31)
        skip, left = span.start, span.length
        async for chunk in self._stored.read(file, 0, file.size, chunk=_PIECE):
            rest = chunk
            while rest and left:
                try:
                    piece = await self._threads.run(decompress.decompress, rest, _PIECE)
                except zlib.error:
                    raise damaged(file) from None
                rest = decompress.unconsumed_tail
                sent = piece[skip : skip + left]
                skip, left = max(0, skip - len(piece)), left - len(sent)
                if sent:
                    yield sent
            if not left:
                return
        if left:
            raise damaged(file)


def list_of(found: Iterable[StoredResult], query: str = "") -> Response:
    """The JSON of a ResultList. The query belongs to the address of each."""
    return Response(b'{"items":[' + b",".join(result.listed(query) for result in found) + b"]}", media_type=_JSON)
