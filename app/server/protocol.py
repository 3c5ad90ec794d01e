"""uvicorn's HTTP/1.1 protocol, bounded where uvicorn waits and keeps without end: before a request's headers are here,
and while a client does not take its answer.

`python -m app serve` uses it, and so does `uvicorn app.main:app --http app.server.protocol:BoundedHttp`.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Any, cast

import structlog
from uuid_utils.compat import uuid7
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import AppError, BadRequest, HeadersTooLarge, RequestTimeout
from app.web import problems
from app.web.middleware import MAX_HEADER_BYTES

log = structlog.get_logger()

HEADER_TIMEOUT = 10.0  # seconds from the first byte, or from connecting, to the end of the headers
SEND_TIMEOUT = 30.0  # seconds in which a client has to take what waits for it: some 300 KiB
UNSENT = 512 * 1024  # bytes that the kernel takes ahead of the client: its own 4 MiB can seem to stand still for longer
LINGER = 1.0  # seconds in which a client that is still sending can read why it is refused
LAST_CALL = 0.5  # seconds that an idle connection stays open at shutdown: a request may be on its way


class BoundedHttp(HttpToolsProtocol):
    """Refuses headers that are too slow or too large, and malformed HTTP, with a problem; then closes. Cuts off clients
    that do not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._due: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._received = 0
        self._refused = False
        self._last_call = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Gathering(transport, self.loop))
        with suppress(OSError):  # a Unix socket has no such option
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_here()
        self._taken()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_are_here()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._received += len(data)
        super().data_received(data)
        if self._due is not None and self._received > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(SEND_TIMEOUT, self._cut_off)

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close after the answer under way, or the one to a request that comes before the last call is over."""
        if self._idle() and not self._last_call:
            self._last_call = True
            self.loop.call_later(LAST_CALL, self.shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest())

    def _expect_headers(self) -> None:
        self._headers_are_here()
        self._received = 0
        self._due = self.loop.call_later(HEADER_TIMEOUT, self._refuse, RequestTimeout())

    def _headers_are_here(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _cut_off(self) -> None:
        log.info("http.cut_off")
        self.transport.abort()  # unlike `close`, which would wait for the client to take the rest

    def _refuse(self, error: AppError) -> None:
        """Answer past the application, which has not seen the request, and close."""
        self._refused = True
        self._headers_are_here()
        request_id = str(uuid7())
        answer = problems.response(error, request_id)
        log.info("http.refused", request_id=request_id, status=error.status, code=error.code)
        headers = [*answer.raw_headers, (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in dict(headers).items())
        if self._idle():  # never into the middle of another answer
            self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + bytes(answer.body))
        self.loop.call_later(LINGER, self.transport.close)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Gathering:
    """A transport that sends in one packet what is written in one turn of the event loop: uvicorn writes the headers
    and the body of an answer one by one, and the first would wake the client for nothing. 1.2 x the small requests."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            # Not `writelines`: it never pauses the writer on some releases of Python (CVE-2024-12254).
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))
